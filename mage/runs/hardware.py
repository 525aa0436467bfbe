"""Published peaks of devices, from which `mage.runs.scaling` computes what a training costs on them.

Peaks are of dense matrix products as the vendor states them, links one way. No program reaches them: a training reaches
a share, which is measured (`MEASURED_SHARE`).
"""

from dataclasses import dataclass

MEASURED_SHARE = 0.149
"""Share of an H200's published peak that a pre-training step of ViT-B on 64 images reaches (results/speed_gpu.json)."""
CPU_SHARE = 0.672
"""The same on two cores, 4 images, of the measured peak (results/speed_cpu.json)."""
BLOCK_SECONDS = 3.77e-3
"""Least time of a block's part of a step on a GPU: launching its kernels (results/speed_gpu.json, 16 images)."""
DEVICES_PER_NODE = 8
"""GPUs of one machine, joined by its own links; more machines are joined by the network."""


@dataclass(frozen=True)
class Hardware:
    """One device; rates per second."""

    name: str
    bf16_tflops: float
    """Dense bfloat16 products with float32 sums; 0: not in hardware, training takes float32."""
    float32_tflops: float
    memory_gb: float
    link_gb_per_s: float
    """One way, to the other devices of the machine."""
    network_gb_per_s: float
    """One way, a device's part of the machine's network card, in the machine named by `source`."""
    source: str

    def tflops(self, precision: str) -> float:
        """Peak under a precision policy; auto takes bfloat16 where it is in hardware. Raises ValueError without it."""
        if precision == "bf16" and not self.bf16_tflops:
            raise ValueError(
                f"{self.name} does not multiply bfloat16 in hardware: --precision float32, or leave it out"
            )
        return self.float32_tflops if precision == "float32" or not self.bf16_tflops else self.bf16_tflops

    def bytes_per_number(self, precision: str) -> int:
        """Bytes of a number in a matrix product under a precision policy."""
        return 4 if precision == "float32" or not self.bf16_tflops else 2

    def bandwidth(self, devices: int) -> float:
        """GB/s, one way, of the slowest link between so many devices."""
        within = devices <= DEVICES_PER_NODE
        return self.link_gb_per_s if within else min(self.link_gb_per_s, self.network_gb_per_s)


HARDWARE = {
    device.name: device
    for device in (
        Hardware("cpu", 0.411, 0.185, 8, 1.25, 1.25,
            "two cores of an EPYC with AVX-512, results/speed_cpu.json; memory and 10 Gbit/s Ethernet are assumed"),
        Hardware("v100", 0, 15.7, 32, 150, 6.25, "NVIDIA V100 SXM2 data sheet (2020); DGX-1: 4 x 100 Gbit/s"),
        Hardware("t4", 0, 8.1, 16, 15.75, 1.56, "NVIDIA T4 data sheet (2019); AWS g4dn.metal: 100 Gbit/s"),
        Hardware("a100", 312, 19.5, 80, 300, 25,
            "NVIDIA A100 80 GB SXM data sheet (2021); DGX A100: 8 x 200 Gbit/s"),
        Hardware("h100", 989, 67, 80, 450, 50,
            "NVIDIA H100 SXM data sheet (2023); DGX H100: 8 x 400 Gbit/s"),
        Hardware("h200", 989, 67, 141, 450, 50,
            "NVIDIA H200 SXM data sheet (2024); DGX H200: 8 x 400 Gbit/s"),
        Hardware("b200", 2250, 75, 180, 900, 50,
            "NVIDIA DGX B200 data sheet (2024), an eighth of it; 8 x 400 Gbit/s"),
        Hardware("rtx4090", 165.2, 82.6, 24, 31.5, 1.56,
            "NVIDIA Ada GPU architecture white paper (2022), PCIe 4 x16; 100 Gbit/s for eight are assumed"),
    )
}  # fmt: skip
"""Devices by the name that `mage plan --device` takes."""
