# mage and what it needs, for a CPU or a CUDA GPU. The files of the build context are those of .dockerignore.
#
#   docker build -t mage .                                      CPU
#   docker build -t mage:cuda --build-arg TORCH=cu130 .         CUDA 13.0; other builds of PyTorch: cu128, cu126
#   docker run --rm -v "$PWD:/work" mage generate --model digits --num 16 --out samples
#   docker run --rm --gpus all --shm-size 8g -v "$PWD:/work" -v mage-cache:/cache mage:cuda doctor
#
# PyTorch's own wheels bring CUDA with them: a GPU needs NVIDIA's driver and its container toolkit on the host only.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY mage ./mage
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm
ARG TORCH=cpu
ARG EXTRAS=demo,metrics,tables,hub
# A compiler, for training steps that are compiled (run.compile).
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir torch torchvision --index-url "https://download.pytorch.org/whl/${TORCH}"
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]"
# Any user may write to the cache, so that `--user "$(id -u):$(id -g)"` works and results belong to that user.
RUN useradd --create-home --uid 1000 mage && mkdir --mode 1777 /cache && install --directory --owner mage /work
ENV MAGE_DATA=/cache/mage HF_HOME=/cache/huggingface TORCHINDUCTOR_CACHE_DIR=/cache/compiled
USER mage
WORKDIR /work
ENTRYPOINT ["mage"]
CMD ["--help"]
