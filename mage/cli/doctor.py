"""`mage doctor`: check the installation, the devices and the packaged models."""

from dataclasses import asdict

from mage.cli.console import emit
from mage.cli.options.doctor import Options
from mage.runs.doctor import Checkup, check


def run(options: Options) -> None:
    """Print what was found; exit code 1 if something that matters is broken."""
    checkup = check(options.device, options.precision)
    emit(options, asdict(checkup), text(checkup))
    if checkup.problems:
        raise SystemExit(1)


def text(checkup: Checkup) -> str:
    """The checkup for people."""
    device = checkup.device
    gpus = [f"{gpu['name']} ({gpu['bytes'] / 2**30:.0f} GiB)" for gpu in device["gpus"]]
    versions = [f"{name} {version}" for name, version in checkup.versions.items() if name != "system"]
    lines = [f"versions: {', '.join(versions)}", f"machine:  {checkup.versions['system']}"]
    lines += [f"          {device['cores']} cores, {device['threads']} threads; GPUs: {', '.join(gpus) or 'none'}"]
    lines += [f"device:   {device['used']}, {device['precision']} ({device['reason']})"]
    lines += ["extras:"] if checkup.extras else ["extras:   not known: the library is not installed by pip"]
    for extra, missing in checkup.extras.items():
        advice = f'without {", ".join(missing)}: pip install "mage-vision[{extra}]"' if missing else "installed"
        lines.append(f"  {extra:12} {advice}")
    lines.append("caches:")
    lines += [f"  {name}: {cache['bytes'] / 1e6:,.0f} MB in {cache['path']}" for name, cache in checkup.caches.items()]
    models = [f"{name} {'intact' if good else 'DAMAGED'}" for name, good in checkup.packaged.items()]
    lines.append(f"packaged models: {', '.join(models) or 'none'}")
    if checkup.seconds:
        lines.append(f"a small model encodes, generates, saves and loads: {checkup.seconds:.1f} s")
    lines += [f"hint: {hint}" for hint in checkup.hints]
    lines += [f"PROBLEM: {problem}" for problem in checkup.problems] or ["all in order"]
    return "\n".join(lines)
