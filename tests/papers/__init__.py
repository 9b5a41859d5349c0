"""Reference loops written from the papers alone: nothing here imports lrdsl, nor was it written beside its cells.

Each function is a slow loop over time on float64 tensors; torch.autograd of the loop is the truth of its gradients.

Conventions. x, y and every other sequence are (T, B, size), a state (B, hidden), then k for order k and N for a state axis.
`h_0` is one tensor, or a tuple where there are several states, in the order of the docstring; None is the paper's start.
Each returns (y, h_n). A weight is (out, in) as in torch.nn.Linear; a diagonal one is (hidden,). Where the docstring says
"number", anything that broadcasts to (T, B, size) will do. `reset` is bool (T, B): True at t is a boundary between t-1 and t,
so that step t reads h_0 instead of the state before it, and 0 instead of an input at a lag; in a recurrence that runs
backwards (returns.py) it is step t-1 that reads its edge instead of the state and the value at t.

typed.py        Balduzzi & Ghifary 2016
  t_rnn(x, h_0, *, W, V, b)                                     h
  t_gru(x, h_0, *, V_z, W_z, b_z, V_f, W_f, b_f, V_o, W_o, b_o) h; x at a lag
  t_lstm(x, c_0, *, V_z, W_z, b_z, V_f, W_f, b_f, V_o, W_o, b_o) c
gated.py
  mingru(x, h_0, *, W_z, b_z, W_h, b_h, positive=False)         positive: the candidate goes through g of the appendix
  minlstm(x, h_0, *, W_f, b_f, W_i, b_i, W_h, b_h, positive=False)
  hgrn(x, h_0, *, gamma, W_mu, b_mu, W_c, b_c)                  gamma: lower bound, (hidden,); y is h, before the output gate
  hgrn_lower_bounds(Gamma)                                      (layers, hidden) -> (layers, hidden)
  rglru(x, h_0, *, Lambda, W_a, b_a, W_x, b_x, c=8.0)           at an edge without h_0 the multiplier is 1
state_space.py  complex states; B, C complex
  lru(x, h_0, *, nu_log, theta_log, gamma_log, B, C, D)         B (hidden, in), C (out, hidden), D (out,)
  s4d(x, h_0, *, log_dt, log_A_real, A_imag, B, C, D, method="zoh")   (H,), (H, N), …; h (B, H, N); "zoh" or "bilinear"
  s5(x, h_0, *, Lambda, log_step, B, C, D, method="zoh", conjugate_pairs=True)
  mamba_s6(x, h_0, *, A_log, W_B, W_C, W_delta, b_delta, D, method="euler")   h (B, D, N); "euler" or "zoh"
oscillators.py
  linoss_im(u, h_0, *, A, dt, B, C, D)                          states (z, y); all real
  linoss_imex(u, h_0, *, A, dt, B, C, D)
  rotation(x, h_0, *, rho, theta, x_2=0.0)                      states (u, v), y = (u, v); x enters u, x_2 enters v
stabilised.py   sequences only
  rwkv4_wkv(k, h_0, *, v, w, u)                                 states (num, den); decay e^-w, w >= 0
  rwkv4_wkv_stabilised(k, h_0, *, v, w, u)                      states (num, den, p)
  mlstm_normaliser(k, h_0, *, i, f, forget="sigmoid")           states (n, m), y = (n, m); i, f before their functions
  mlstm(v, h_0, *, k, q, i, f, forget="sigmoid")                states (c, n, m): heads of size 1
  slstm(x, h_0, *, W_z, b_z, W_i, b_i, W_f, b_f, W_o, b_o, forget="sigmoid")   states (c, n, m)
filters.py      sequences and numbers only
  ema(x, h_0, *, alpha)
  damped_ema(x, h_0, *, alpha, delta)
  mega_ema(x, h_0, *, alpha, delta, beta, eta)                  the multi-dimensional one; (H, N); h (B, H, N)
  holt_winters(x, h_0, *, alpha, beta)                          states (level, trend), y = level + trend
  lfilter(x, y_0, *, b, a)                                      b, a: lists of numbers, a[0] = 1; y_0 (B, size, k), latest first
  biquad(x, y_0, *, b0, b1, b2, a1, a2)
  kalman(z, x_0, *, gain, transition=1.0, observation=1.0)
returns.py      run backwards; h_0 is the state after the last step
  ahead(value, end=None, *, reset=None)                         value[t+1], `end` at the last step and before a boundary
  discounted_return(reward, h_0, *, discount)
  gae(reward, h_0, *, value, discount, lam, value_end=None)     V at t+1 is value_end (0) at an edge; done: a discount of 0
  lambda_return(reward, h_0, *, next_value, discount, lam)
  vtrace(reward, h_0, *, value, ratio, discount, value_end=None, rho_bar=1.0, c_bar=1.0, lam=1.0)   state v - V, y = v
cumulative.py
  cumsum(x, h_0), cumprod(x, h_0), cummax(x, h_0), logcumsumexp(x, h_0)
nonlinear.py    not linear in the state
  sru_v2(x, c_0, *, W, W_f, v_f, b_f, W_r, v_r, b_r, alpha=1.0)
  indrnn(x, h_0, *, W, u, b, activation=torch.relu)
  diagonal_gru(x, h_0, *, A_z, B_z, b_z, A_r, B_r, b_r, A_h, B_h, b_h)
  diagonal_lstm(x, h_0, *, A_f, B_f, C_f, b_f, A_c, B_c, b_c, A_o, B_o, C_o, b_o)   states (h, c)
"""

from .cumulative import cummax, cumprod, cumsum, logcumsumexp
from .filters import biquad, damped_ema, ema, holt_winters, kalman, lfilter, mega_ema
from .gated import hgrn, hgrn_lower_bounds, mingru, minlstm, rglru
from .nonlinear import diagonal_gru, diagonal_lstm, indrnn, sru_v2
from .oscillators import linoss_im, linoss_imex, rotation
from .returns import ahead, discounted_return, gae, lambda_return, vtrace
from .stabilised import mlstm, mlstm_normaliser, rwkv4_wkv, rwkv4_wkv_stabilised, slstm
from .state_space import lru, mamba_s6, s4d, s5
from .typed import t_gru, t_lstm, t_rnn

__all__ = [
    "ahead", "biquad", "cummax", "cumprod", "cumsum", "damped_ema", "diagonal_gru", "diagonal_lstm", "discounted_return",
    "ema", "gae", "hgrn", "hgrn_lower_bounds", "holt_winters", "indrnn", "kalman", "lambda_return", "lfilter", "linoss_im",
    "linoss_imex", "logcumsumexp", "lru", "mamba_s6", "mega_ema", "mingru", "minlstm", "mlstm", "mlstm_normaliser", "rglru",
    "rotation", "rwkv4_wkv", "rwkv4_wkv_stabilised", "s4d", "s5", "slstm", "sru_v2", "t_gru", "t_lstm", "t_rnn", "vtrace",
]  # fmt: skip
