"""Two coupled real states a channel: LinOSS and the damped rotation."""

from __future__ import annotations

import torch
from torch import Tensor

from .loops import before, edge, reference, together

Pair = tuple[Tensor, Tensor]


@reference
def linoss_im(
    u: Tensor, h_0: Pair | None = None, *, A: Tensor, dt: Tensor, B: Tensor, C: Tensor, D: Tensor, reset: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """LinOSS-IM: Rusch & Rus 2024, arXiv 2410.03943, section 2. Both equations implicit, solved here for y[n] first:

        z[n] = z[n-1] + dt (-A y[n] + B u[n])
        y[n] = y[n-1] + dt z[n]
        so that (1 + dt^2 A) y[n] = y[n-1] + dt z[n-1] + dt^2 B u[n]
        x[n] = Re(C y[n]) + D u[n]

    A >= 0 and dt in (0, 1] are taken as they act, after the relu and the sigmoid of the authors' code.
    Shapes: u (T, B, I), A and dt (N,), B (N, I), C (O, N), D (O,) with O = I; B and C may be complex, as in the code, and then
    the states are. h_0 = (z_0, y_0), each (B, N); gives x (T, B, O) and (z, y) of the last step.
    """
    z, y = z_0, y_0 = _pair(h_0, u.shape[1], len(A), like=B)
    x = []
    for n in range(len(u)):
        z, y = before(z, z_0, reset, n), before(y, y_0, reset, n)
        Bu = u[n].to(B.dtype) @ B.T
        y_next = (y + dt * z + dt**2 * Bu) / (1 + dt**2 * A)
        z, y = z + dt * (-A * y_next + Bu), y_next
        x.append(_real(y @ C.T) + D * u[n])
    return torch.stack(x), (z, y)


@reference
def linoss_imex(
    u: Tensor, h_0: Pair | None = None, *, A: Tensor, dt: Tensor, B: Tensor, C: Tensor, D: Tensor, reset: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """LinOSS-IMEX (ibid.): z explicit, y implicit, which keeps the volume of the phase space.

        z[n] = z[n-1] + dt (-A y[n-1] + B u[n])
        y[n] = y[n-1] + dt z[n]
        x[n] = Re(C y[n]) + D u[n]

    Shapes as in linoss_im.
    """
    z, y = z_0, y_0 = _pair(h_0, u.shape[1], len(A), like=B)
    x = []
    for n in range(len(u)):
        z, y = before(z, z_0, reset, n), before(y, y_0, reset, n)
        z = z + dt * (-A * y + u[n].to(B.dtype) @ B.T)
        y = y + dt * z
        x.append(_real(y @ C.T) + D * u[n])
    return torch.stack(x), (z, y)


@reference
def rotation(
    x: Tensor, h_0: Pair | None = None, *, rho: Tensor | float, theta: Tensor | float, x_2: Tensor | float = 0.0,
    reset: Tensor | None = None,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:  # fmt: skip
    """A rotation by theta, damped by rho: multiplication by the complex number rho exp(i theta), in real parts.

        u[t] = rho (cos(theta) u[t-1] - sin(theta) v[t-1]) + x[t]
        v[t] = rho (sin(theta) u[t-1] + cos(theta) v[t-1]) + x_2[t]

    Shapes: x and x_2 (T, B, C), rho and theta numbers that may move, h_0 = (u_0, v_0), each (B, C); gives (u, v), each
    (T, B, C), and both of the last step.
    """
    x, x_2, rho, theta = together(x, x_2, rho, theta)
    u, v = u_0, v_0 = _pair(h_0, *x.shape[1:], like=x)
    us, vs = [], []
    for t in range(len(x)):
        u, v = before(u, u_0, reset, t), before(v, v_0, reset, t)
        cos, sin = torch.cos(theta[t]), torch.sin(theta[t])
        u, v = rho[t] * (cos * u - sin * v) + x[t], rho[t] * (sin * u + cos * v) + x_2[t]
        us.append(u)
        vs.append(v)
    return (torch.stack(us), torch.stack(vs)), (u, v)


def _pair(h_0: Pair | None, *shape: int, like: Tensor) -> Pair:
    first, second = (None, None) if h_0 is None else h_0
    return edge(first, *shape, like=like), edge(second, *shape, like=like)


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x
