"""Convolutional recurrent cells: one step of a ConvLSTM, a ConvGRU or a plain convolutional RNN on feature maps.

A cell takes a frame (B, in_channels, H, W) and its last state, and returns the new state: a tuple of maps
(B, hidden_channels, H, W) of which the first is the hidden state H. No state (None) stands for zeros and saves the
convolution over them. For 1x1 maps with kernel size 1 the cells are those of nn.LSTM, nn.GRU and nn.RNN.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from healing_mnist.checks import Positive, UserError

State = tuple[Tensor, ...]


def same_conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """A convolution that keeps height and width. Raises UserError for an even kernel size, which cannot."""
    if kernel_size % 2 == 0:
        raise UserError(f"model.kernel_size={kernel_size}: must be odd, or the maps would change their size")
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


def convolve_both(conv: nn.Conv2d, frame: Tensor, hidden: Tensor | None) -> Tensor:
    """W_x * X + W_h * H + b as one convolution over both; a hidden state of zeros (None) is left out."""
    if hidden is None:
        return F.conv2d(frame, conv.weight[:, : frame.shape[1]], conv.bias, padding=conv.padding)
    return conv(torch.cat((frame, hidden), 1))


class ConvLSTMCell(nn.Module):
    """LSTM with convolutions (Shi et al. 2015); state (H, C).

    i = s(Wxi*X + Whi*H + Wci.C + bi), f = s(Wxf*X + Whf*H + Wcf.C + bf), C' = f.C + i.tanh(Wxc*X + Whc*H + bc),
    o = s(Wxo*X + Who*H + Wco.C' + bo), H' = o.tanh(C'), where * is convolution, . the product of elements and s the
    logistic function. The terms in C and C' are the peepholes.

    Args:
        in_channels: of a frame.
        hidden_channels: of H and C.
        kernel_size: side of the square kernels, odd.
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
        hidden, memory = state or (None, None)
        gates = convolve_both(self.conv, frame, hidden)
        # In the type of the gates: float32 weights would pull all that follows out of bfloat16.
        peepholes = None if self.peepholes is None else self.peepholes.to(gates.dtype)
        return self.update(gates, memory, peepholes)


def lstm_update(gates: Tensor, memory: Tensor | None, peepholes: Tensor | None) -> State:
    """Pre-activations (B, 4*hidden, H, W) less peepholes, and C -> H', C'."""
    i, f, g, o = gates.chunk(4, 1)
    if peepholes is not None and memory is not None:
        i = i + peepholes[0] * memory
        f = f + peepholes[1] * memory
    new = i.sigmoid() * g.tanh()
    if memory is not None:
        new = new + f.sigmoid() * memory
    if peepholes is not None:
        o = o + peepholes[2] * new
    return o.sigmoid() * new.tanh(), new


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
        of_frame = self.input_conv(frame)
        if state is None:
            return self.update(of_frame, self.hidden_conv.bias.view(1, -1, 1, 1).to(of_frame.dtype), None)
        return self.update(of_frame, self.hidden_conv(state[0]), state[0])


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
