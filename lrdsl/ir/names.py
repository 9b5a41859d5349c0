"""Names in generated text."""

from __future__ import annotations

import re

# The words of C++ and CUDA, names that a generated file uses itself, and macros that compilers define.
RESERVED = frozenset("""
alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const constexpr const_cast
continue decltype default delete do double dynamic_cast else enum explicit export extern false float for friend goto if
inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public register
reinterpret_cast requires return short signed sizeof static static_assert static_cast struct switch template this throw true
try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq main linux unix
real V I LANES WHOLE Args Index Step At Loads Inside Boundaries Scratch Window Reset a at b c n t s i r lo width past scratch
ring now next ahead reset zeros cross step sweep lanes share get put load store load_n store_n write fold earlier later window
clear copy add refill large splat select threadIdx blockIdx blockDim gridDim warpSize half assert offset thread batch channel
board place ticket held Held live warp lane row rows channels chunk crossed s0 t0 k there cut all All whole walk first second
before word exponent power_of_two Word State Stretch Place Board Message Unneeded ROOM tell hear unmoved size_of state_of
tell_numbers tell_state tell_transition one_by_one state_before handed_on over_warps NOTHING TRANSITION CUT STATE
Row Edges edges last Again again again_ahead again_board again_cross again_step again_read
again_lanes constant_lanes over_lanes only read
Exchange Stretches Staged exchange staged segment count parts rest k0 number tell_stretches hear_states add_warps unmoved_all
tells_state EARLIER AT_ONCE Unasked in_order Sweep steps begin end leave s1
in k In EACH several given pick take give spread exchange solve then placed taken worry solved finite added raised looked_up
upto apart whole_vectors Told Chain Block ahead_of Pair PairWindow pair_window woven_first woven_second
left of own flush LEAST ROUNDED REGISTERS side_by_side unbroken
AHEAD BACK BATCH BEHIND CACHE COUNT Exponential Flushed Gathered HELD ITEM LEVELS LINE LINE_BYTES MOST NEAR ONE_BY_ONE PIECE
RAGGED SEVERAL SIZE Stored StoredWindow WORDS any begins_line fill gathered joined largest_over_warps narrowed share_blocks
share_lanes spread_out store_past stored_edges stored_window stretched whole_lines widened zipped numbers STATES heard keep
""".split())

# Names that templates derive from others.
_DERIVED = re.compile(r"to_.*[^_]|.*_(all|kept|part|total|crossing|beyond|row|far|stride|upto|whole|tail|from|again|before|"
                      r"powers|told|solved|columns|pair|c\d+)|(constant|beyond)_\d+|(Map|Upto)\d*|woven_\d+|"
                      r"(adding|add|hear|tell|pass|tiles?|Held)_\d+|(Sums|InOrder)\d+")


def c_name(name: str, taken: set[str]) -> str:
    """An identifier of C++ and CUDA that reads like `name`."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    plain = "".join(ch if ch != "_" or old in "._#" else f"u{ord(old):x}" for ch, old in zip(plain, name, strict=True))
    if not plain or plain[0].isdigit() or plain.startswith(("_", "lr_", "LR_")) or plain in RESERVED or "__" in plain \
            or _DERIVED.fullmatch(plain):
        plain = f"x_{plain.strip('_')}" if not plain[:1].isalpha() else f"{plain}_"
        plain = re.sub(r"__+", "_", plain)
    unique, k = plain, 2
    while unique in taken:
        unique, k = f"{plain}_{k}", k + 1
    taken.add(unique)
    return unique
