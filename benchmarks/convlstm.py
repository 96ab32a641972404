"""A training step of the ConvLSTM against the plain way to write it.

    python benchmarks/convlstm.py [--sizes 4,40,2,32 4,40,10,16] [--device cuda] [--compile] [--clock cpu] [--peak 60]
                                  [--float32]

The rival: a cell that runs one convolution over input and state joined at every step, the first with a state of zeros,
and leaves the rest to autograd; contiguous, float32. Both have the same weights, and their outputs are compared first.
A step is forward, mean squared error and backward on 36x36 frames, with batch norm between layers. All variants of a
size take turns, so that a busy machine slows all of them; a ratio is the rival's median over the variant's, both with
or both without peepholes.

`kept` is what the forward pass keeps for the backward pass, in MB; TFLOP/s are the operations of plain convolutions
over the time that a variant took. On a machine where others work, --clock cpu counts the seconds this process computed,
best with OMP_NUM_THREADS=1. For blocks above 32 MB glibc asks the system anew each time; MALLOC_MMAP_MAX_=0
MALLOC_TRIM_THRESHOLD_=100000000000 in the environment makes it keep them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from healing_mnist.networks.conv_recurrent import ConvLSTM

SIZES = ["1,10,2,32", "1,10,10,32", "4,40,2,32", "4,40,10,16", "4,71,2,32", "4,71,10,8"]  # layers, channels, T, batch


class PlainCell(nn.Module):
    def __init__(self, in_channels: int, hidden_channels: int, peepholes: bool):
        super().__init__()
        self.hidden_channels = hidden_channels
        self.conv = nn.Conv2d(in_channels + hidden_channels, 4 * hidden_channels, 3, padding=1)
        self.peepholes = nn.Parameter(torch.zeros(3, hidden_channels, 36, 36)) if peepholes else None

    def forward(self, frame: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.conv(torch.cat([frame, hidden], dim=1)).chunk(4, dim=1)
        if self.peepholes is not None:
            i = i + self.peepholes[0] * memory
            f = f + self.peepholes[1] * memory
        memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
        if self.peepholes is not None:
            o = o + self.peepholes[2] * memory
        return torch.sigmoid(o) * torch.tanh(memory), memory


class PlainConvLSTM(nn.Module):
    def __init__(self, layers: int, channels: int, peepholes: bool):
        super().__init__()
        widths = [1] + [channels] * layers
        self.cells = nn.ModuleList(PlainCell(widths[i], channels, peepholes) for i in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(layers - 1))
        self.to_image = nn.Sequential(nn.Conv2d(channels, 1, 3, padding=1), nn.ReLU())

    def forward(self, frames: Tensor) -> Tensor:
        batch, steps = frames.shape[:2]
        for layer, cell in enumerate(self.cells):
            hidden = memory = frames.new_zeros(batch, cell.hidden_channels, 36, 36)
            outputs = []
            for t in range(steps):
                hidden, memory = cell(frames[:, t], hidden, memory)
                outputs.append(hidden)
            frames = torch.stack(outputs, dim=1)
            if layer < len(self.norms):
                frames = self.norms[layer](frames.flatten(0, 1)).unflatten(0, (batch, steps))
        return self.to_image(frames[:, -1]).unsqueeze(1)


def variant(layers: int, channels: int, peepholes: bool, device: str, compiled: bool = False) -> nn.Module:
    network = ConvLSTM((1, 36, 36), layers=layers, hidden_channels=channels, peepholes=peepholes)
    network = network.to(device, memory_format=torch.channels_last)
    if compiled:
        network.compile()
    return network


def training_step(network: nn.Module, frames: Tensor, target: Tensor, bfloat16: bool) -> Callable[[], Tensor]:
    def step() -> Tensor:
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=bfloat16):
            image = network(frames)
            image = image if isinstance(image, Tensor) else image.image
            F.mse_loss(image, target).backward()
        for parameter in network.parameters():
            parameter.grad = None
        return image.detach()

    return step


def kept(step: Callable[[], Tensor], network: nn.Module) -> float:
    """MB of distinct memory that autograd keeps after the forward pass, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(sizes.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="layers,channels,T,batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="compiled variants too")
    parser.add_argument("--float32", action="store_true", help="no bf16, for which some CPUs have no instructions")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--peak", type=float, help="the device's peak in TFLOP/s, for the share of it that is reached")
    arguments = parser.parse_args()
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    cuda = arguments.device.startswith("cuda")

    def seconds(step: Callable[[], Tensor]) -> float:
        start = clock()
        step()
        if cuda:
            torch.cuda.synchronize()
        return clock() - start

    print(f"{torch.get_num_threads()} threads, {arguments.device}, {arguments.clock} clock; times the rival's speed")
    for size in arguments.sizes:
        layers, channels, steps, batch = map(int, size.split(","))
        torch.manual_seed(0)
        frames = torch.rand(batch, steps, 1, 36, 36, device=arguments.device)
        target = torch.rand(batch, 1, 1, 36, 36, device=arguments.device)
        networks = {
            f"{kind}{' no peepholes' * (not peepholes)}": (kind, peepholes)
            for peepholes in (True, False)
            for kind in ("rival", "float32", "bf16", *(("compiled", "bf16 compiled") if arguments.compile else ()))
            if not (arguments.float32 and "bf16" in kind)
        }
        measured = {}
        for name, (kind, peepholes) in networks.items():
            if kind == "rival":
                network = rival = PlainConvLSTM(layers, channels, peepholes).to(arguments.device)
            else:
                network = variant(layers, channels, peepholes, arguments.device, "compiled" in kind)
                network.load_state_dict(rival.state_dict())
            step = training_step(network, frames, target, "bf16" in kind)
            memory = kept(step, network)
            measured[name] = step, memory, []
            if kind == "rival":
                expected = step()
            else:
                error = (step() - expected).abs().max().item()
                assert error < (0.1 if "bf16" in kind else 1e-4), f"{name} differs by {error}"
        for _ in range(arguments.rounds):
            for step, _, times in measured.values():
                times.append(seconds(step))
        with FlopCounterMode(display=False) as counter:
            measured["float32" if cuda else "rival"][0]()  # on a CPU some variants take fewer, by Winograd's method
        print(f"\n{layers} layers, {channels} channels, T={steps}, batch {batch}")
        medians = {name: statistics.median(times) for name, (_, _, times) in measured.items()}
        for name, (_, memory, _) in measured.items():
            time_taken = medians[name]
            reference = medians["rival no peepholes" if name.endswith("no peepholes") else "rival"]
            speed = counter.get_total_flops() / time_taken / 1e12
            share = f"  {speed / arguments.peak:5.1%} of peak" if arguments.peak else ""
            print(
                f"  {name:<27} {reference / time_taken:5.2f}x  {time_taken * 1e3:8.1f} ms  {speed:6.2f} TFLOP/s{share}"
                f"  kept {memory:7.1f} MB"
            )


if __name__ == "__main__":
    main()
