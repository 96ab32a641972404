"""Convolutional recurrent cells: one step of a ConvLSTM, a ConvGRU or a plain convolutional RNN on feature maps.

A cell takes a frame (B, in_channels, H, W) and its last state, and returns the new state: a tuple of maps
(B, hidden_channels, H, W) of which the first is the hidden state H. No state (None) stands for zeros and saves the
convolution over them. For 1x1 maps with kernel size 1 the cells are those of nn.LSTM, nn.GRU and nn.RNN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from healing_mnist.checks import Positive, UserError
from healing_mnist.machine import processor
from healing_mnist.networks.winograd import WinogradConvolution, is_faster

State = tuple[Tensor, ...]
# torch's tanh is MKL's: on a CPU of Intel's it takes a third of the time of `fast_tanh`, on another five times as long.
SLOW_TANH = torch.backends.mkl.is_available() and "Intel" not in processor()


def same_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution that keeps height and width. Raises UserError for an even kernel size, which cannot."""
    if kernel_size % 2 == 0:
        raise UserError(f"model.kernel_size={kernel_size}: must be odd, or the maps would change their size")
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def convolve_both(conv: nn.Conv2d, frame: Tensor, hidden: Tensor | None) -> Tensor:
    """W_x * X + W_h * H + b as one convolution over both; a hidden state of zeros (None) is left out."""
    if hidden is None:
        return fast_conv2d(frame, conv.weight[:, : frame.shape[1]], conv.bias)
    if frame.shape[1] == 1 and hidden.is_contiguous(memory_format=torch.channels_last):
        # A single channel is in both layouts, but its strides are those of the other, which `cat` would take.
        frame = frame.reshape(-1, *frame.shape[2:], 1).permute(0, 3, 1, 2)
    return fast_conv2d(torch.cat((frame, hidden), 1), conv.weight, conv.bias)


def fast_conv2d(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d` that keeps height and width, by Winograd's method where that is faster, on a CPU in float32."""
    plain = maps.is_cpu and maps.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if plain and maps.is_contiguous(memory_format=torch.channels_last) and is_faster(maps, weight):
        return WinogradConvolution.apply(maps, weight, bias)
    return F.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2)


class ConvLSTMCell(nn.Module):
    """LSTM with convolutions (Shi et al. 2015); state (H, C).

    i = s(Wxi*X + Whi*H + Wci.C + bi), f = s(Wxf*X + Whf*H + Wcf.C + bf), C' = f.C + i.tanh(Wxc*X + Whc*H + bc),
    o = s(Wxo*X + Who*H + Wco.C' + bo), H' = o.tanh(C'), where * is convolution, . the product of elements and s the
    logistic function. The terms in C and C' are the peepholes.

    Args:
        in_channels: of a frame.
        hidden_channels: of H and C.
        kernel_size: side of the square kernels, odd.

    Raises:
        UserError: a frame is of another size than the peepholes.
    """

    def __init__(self, in_channels: Positive, hidden_channels: Positive, kernel_size: Positive = 3):
        super().__init__()
        self.conv = same_conv(in_channels + hidden_channels, 4 * hidden_channels, kernel_size)  # i, f, c, o
        self.register_parameter("peepholes", None)
        self.update = lstm_update
        with torch.no_grad():
            # A gate that begins open remembers until it learns to forget (Jozefowicz et al. 2015).
            self.conv.bias[hidden_channels : 2 * hidden_channels] += 1

    def add_peepholes(self, height: Positive, width: Positive) -> None:
        """Let the gates see C, by a weight for every element of the map, zero at first."""
        self.peepholes = nn.Parameter(torch.zeros(3, self.conv.out_channels // 4, height, width))  # Wci, Wcf, Wco

    def forward(self, frame: Tensor, state: State | None = None) -> State:
        if self.peepholes is not None and self.peepholes.shape[2:] != frame.shape[2:]:
            made, given = ("x".join(map(str, shape[2:])) for shape in (self.peepholes.shape, frame.shape))
            raise UserError(
                f"frames are {given}, the peepholes were made for {made}; model.peepholes=false fits any size"
            )
        hidden, memory = state or (None, None)
        gates = convolve_both(self.conv, frame, hidden)
        # In the type of the gates: float32 weights would pull all that follows out of bfloat16.
        peepholes = None if self.peepholes is None else self.peepholes.to(gates.dtype)
        return self.update(gates, memory, peepholes)


def lstm_update(gates: Tensor, memory: Tensor | None, peepholes: Tensor | None) -> State:
    """Convolutions' results (B, 4*hidden, H, W) in the order i, f, c, o, and C (None: zeros) -> H', C'."""
    return _LSTMUpdate.apply(gates, memory, peepholes)


class _LSTMUpdate(torch.autograd.Function):
    """The equations of `ConvLSTMCell` after the convolutions, with their derivative written out.

    Fewer passes over memory than autograd's own, and less is kept: the gates and C'. Every gate is copied out of the
    convolutions' result first: in channels_last layout a slice of the channels is scattered over memory, and functions
    of it run at a fraction of their speed.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, memory: Tensor | None, peepholes: Tensor | None) -> State:
        i, f, g, o = (gate.clone() for gate in gates.chunk(4, 1))
        see_i, see_f, see_o = (None, None, None) if peepholes is None else peepholes
        if peepholes is not None and memory is not None:
            i.addcmul_(see_i, memory)
            f.addcmul_(see_f, memory)
        g = fast_tanh(g)
        new = i.sigmoid_() * g
        if memory is not None:
            new.addcmul_(f.sigmoid_(), memory)
        if peepholes is not None:
            o.addcmul_(see_o, new)
        o.sigmoid_()
        ctx.save_for_backward(i, f, g, o, memory, new, peepholes)
        return fast_tanh(new).mul_(o), new

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_hidden: Tensor, d_new: Tensor) -> tuple[Tensor | None, ...]:
        i, f, g, o, memory, new, peepholes = ctx.saved_tensors
        see_i, see_f, see_o = (None, None, None) if peepholes is None else peepholes
        tanh = fast_tanh(new)
        d_new = _tanh_backward_(d_hidden * o, tanh).add_(d_new)
        d_o = _sigmoid_backward_(tanh.mul_(d_hidden), o)
        if peepholes is not None:
            d_new.addcmul_(d_o, see_o)
        d_i = _sigmoid_backward_(d_new * g, i)
        d_g = _tanh_backward_(d_new * i, g)
        if memory is None:
            d_f, d_memory = torch.zeros_like(i), None
        else:
            d_f = _sigmoid_backward_(d_new * memory, f)
            d_memory = d_new.mul_(f)
        d_peepholes = None
        if peepholes is not None:
            d_peepholes = torch.zeros_like(peepholes)
            d_peepholes[2] = _sum_over_batch(d_o * new)
            if memory is not None:
                d_memory.addcmul_(d_i, see_i).addcmul_(d_f, see_f)
                d_peepholes[0] = _sum_over_batch(d_i * memory)
                d_peepholes[1] = _sum_over_batch(d_f * memory)
        return torch.cat((d_i, d_f, d_g, d_o), 1), d_memory, d_peepholes


def fast_tanh(x: Tensor) -> Tensor:
    """tanh(x), where torch's own is slow as 2 s(2x) - 1 in float32; error below 2e-7."""
    if SLOW_TANH and x.is_cpu and x.dtype in (torch.float32, torch.bfloat16):
        return (2 * x.float()).sigmoid_().mul_(2).sub_(1).to(x.dtype)
    return x.tanh()


def _sigmoid_backward_(d_out: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.sigmoid_backward.grad_input(d_out, out, grad_input=d_out)


def _tanh_backward_(d_out: Tensor, out: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward.grad_input(d_out, out, grad_input=d_out)


def _sum_over_batch(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, H, W) as a product of matrices, several times as fast as a sum in channels_last layout."""
    rows = x.permute(0, 2, 3, 1).flatten(1)
    return (rows.new_ones(1, len(x)) @ rows).view(*x.shape[2:], -1).permute(2, 0, 1)


class ConvGRUCell(nn.Module):
    """GRU with convolutions (Ballas et al. 2016), the reset gate after the convolution as in nn.GRU; state (H,).

    r = s(Wxr*X + Whr*H + br), z = s(Wxz*X + Whz*H + bz), n = tanh(Wxn*X + bn + r.(Whn*H + b'n)), H' = (1-z).n + z.H
    """

    def __init__(self, in_channels: Positive, hidden_channels: Positive, kernel_size: Positive = 3):
        super().__init__()
        self.input_conv = same_conv(in_channels, 3 * hidden_channels, kernel_size)  # r, z, n
        self.hidden_conv = same_conv(hidden_channels, 3 * hidden_channels, kernel_size)
        self.update = gru_update

    def forward(self, frame: Tensor, state: State | None = None) -> State:
        of_frame = fast_conv2d(frame, self.input_conv.weight, self.input_conv.bias)
        if state is None:
            # Of zeros the convolution leaves its bias. Its weights get a gradient all the same, for which ddp waits
            # where a single frame is read.
            bias = self.hidden_conv.bias + 0 * self.hidden_conv.weight.sum()
            return self.update(of_frame, bias.view(1, -1, 1, 1).to(of_frame.dtype), None)
        of_hidden = fast_conv2d(state[0], self.hidden_conv.weight, self.hidden_conv.bias)
        return self.update(of_frame, of_hidden, state[0])


def gru_update(of_frame: Tensor, of_hidden: Tensor, hidden: Tensor | None) -> State:
    """Both convolutions' results, each (B, 3*hidden, H, W), and H -> H'."""
    (xr, xz, xn), (hr, hz, hn) = of_frame.chunk(3, 1), of_hidden.chunk(3, 1)
    z = (xz + hz).sigmoid()
    n = (xn + (xr + hr).sigmoid() * hn).tanh()
    return (n - z * n if hidden is None else n + z * (hidden - n),)


class ConvRNNCell(nn.Module):
    """Plain recurrence H' = tanh(Wx*X + Wh*H + b); state (H,)."""

    def __init__(self, in_channels: Positive, hidden_channels: Positive, kernel_size: Positive = 3):
        super().__init__()
        self.conv = same_conv(in_channels + hidden_channels, hidden_channels, kernel_size)
        self.update = torch.tanh

    def forward(self, frame: Tensor, state: State | None = None) -> State:
        return (self.update(convolve_both(self.conv, frame, state and state[0])),)
