"""What cannot be done with areas: checks of an operation against what a sequence holds."""

from collections.abc import Callable, Mapping

from kvbench.ledger.accounts import Account, Holding
from kvbench.ledger.names import Named
from kvbench.ledger.outcome import LedgerError
from kvbench.plan.area import NORM, SIGNALS, Area, Blocks, Chunks, Contiguous, Holes, Packed, Ring
from kvbench.plan.ops import Move, Operation, Publish, Reuse, Rule, Truncate


def check_reach(op: Operation, held: Holding) -> None:
    """Refuse to go on where layers with a window lack what the next token looks at."""
    reach = held.cost.reach
    if reach is not None and held.num_left * held.cost.area.blocks.num_tokens > max(held.num_used - reach + 1, 0):
        raise LedgerError(
            f"{op}: layers with a window of {reach} look back from token {held.num_used}, and area "
            f"{held.cost.area.name} lacks the first {held.num_left} blocks"
        )


def check_groups(op: Operation, held: Holding, num_tokens: int) -> None:
    """Refuse to write parts of groups that are packed together."""
    if isinstance(held.cost.area.format, Packed) and num_tokens % held.cost.unit_tokens:
        raise LedgerError(f"{op}: {num_tokens} tokens are no whole groups of {held.cost.unit_tokens}")


def check_behind(op: Operation, held: Holding) -> None:
    """Refuse to write behind tokens that have not arrived."""
    if held.arriving:
        raise LedgerError(f"{op}: {held.arriving} tokens are on their way to the end of that area; settle them first")


def check_one_chain(op: Operation, num_chains: int) -> None:
    """Refuse what is done to one area alone where groups of layers live in areas that do not follow it."""
    if num_chains > 1:
        raise LedgerError(f"{op}: groups of layers live in {num_chains} chains of areas, and all would have to follow")


def check_chains(accounts: Mapping[int, Account | None]) -> None:
    """Refuse a plan that appends to some layers and not to others."""
    for seq, account in accounts.items():
        if account is not None and len(set(account.seen)) > 1:
            raise LedgerError(
                f"sequence {seq}: a plan appends each token to every chain of areas, got {account.seen} tokens in them"
            )


def check_windows(op: Truncate, held: Holding) -> None:
    """Refuse to go back to tokens that layers with a sliding window no longer hold."""
    bounds = [group.most_tokens for group in held.cost.groups if group.most_tokens is not None]
    least = min(bounds, default=held.num_used)
    if held.num_used > least and op.num_tokens < held.num_used:
        raise LedgerError(
            f"{op}: layers with a sliding window hold the last {least} of {held.num_used} tokens; what "
            "was before cannot be restored"
        )


def check_unshared(op: Truncate, held: Holding, is_read: Callable[[int], bool]) -> None:
    """Refuse to go back to tokens in blocks that other sequences hold as well, or find by their names."""
    if isinstance(held.cost.area.layout, Blocks):
        unit = held.cost.area.layout.num_tokens
        touched = held.blocks[(held.num_used - op.num_tokens) // unit : -(-held.num_used // unit)]
        if any(map(is_read, touched)):
            raise LedgerError(f"{op}: others read some of these tokens")


def check_published(op: Publish, account: Account, held: Holding) -> int:
    """Refuse to name what is no block of first tokens as they were; the blocks that these tokens fill."""
    layout = held.cost.area.layout
    if not isinstance(layout, Blocks):
        raise LedgerError(f"{op}: blocks have names, and area {op.area} of sequence {op.seq} lies in {layout}")
    if held.cost.frees_windows:
        raise LedgerError(f"{op}: layers with a window give back what others would find")
    num_blocks, rest = divmod(op.num_tokens, layout.num_tokens)
    if rest or not held.num_left < num_blocks <= held.num_used // layout.num_tokens:
        raise LedgerError(
            f"{op}: whole blocks of {layout.num_tokens} tokens have names, of the {held.num_used} that sequence "
            f"{op.seq} has written"
        )
    if account.num_altered > held.num_cast or account.num_seen > held.num_used:
        raise LedgerError(f"{op}: the first tokens of sequence {op.seq} are no longer in its blocks as they were")
    return num_blocks


def check_reused(op: Reuse, held: Holding, named: Named, state_bytes: int) -> None:
    """Refuse a block that does not go on where a sequence ends."""
    if named.area != op.area:
        raise LedgerError(f"{op}: the block of the name {op.key!r} is of area {named.area}, not {op.area}")
    begins = named.num_tokens - held.cost.area.blocks.num_tokens
    passes = held.cost.reach is not None and not held.capacity  # over what no window reaches
    if held.num_used != held.capacity or (held.num_used != begins and not passes):
        raise LedgerError(
            f"{op}: the block of the name {op.key!r} goes on after {begins} tokens; sequence {op.seq} has "
            f"{held.num_used}, in {held.capacity} slots"
        )
    if state_bytes:
        raise LedgerError(f"{op}: sequence {op.seq} has states, which can be resumed only where they were kept")


def check_rule(op: Operation, area: Area, rule: Rule, num_used: int) -> None:
    """Refuse to keep what an area's layout cannot keep, or to rank by what it does not track."""
    known = NORM if area.score is None else SIGNALS[type(area.score)]
    if rule.top and rule.by not in (NORM, known):
        raise LedgerError(f"{op}: area {area.name} ranks its slots by {' or '.join(sorted({NORM, known}))}")
    match area.layout:
        case Contiguous():
            if not area.positions and (rule.first or rule.top):
                raise LedgerError(
                    f"{op}: area {area.name} keeps no positions, so that it keeps the most recent slots only"
                )
        case Ring(num_pinned):
            if rule.top or rule.first != num_pinned:
                raise LedgerError(f"{op}: a ring keeps its {num_pinned} pinned slots and the most recent")
        case Chunks():
            if rule.top or rule.first:
                raise LedgerError(f"{op}: chunks keep the most recent slots only")
        case Blocks(block_tokens):
            num_kept = rule.num_kept(num_used)
            if rule.top or rule.first or (num_kept and (num_used - num_kept) % block_tokens):
                raise LedgerError(f"{op}: blocks leave whole, the oldest first")


def check_move(op: Move, src: Holding, dst: Holding, num_moved: int) -> None:
    """Refuse a move that one of its areas does not allow."""
    if src is dst:
        raise LedgerError(f"{op}: tokens move from one area to another")
    if isinstance(dst.cost.area.layout, Holes):
        raise LedgerError(f"{op}: an area with holes takes new tokens only")
    check_groups(op, dst, num_moved)
    if src.cost.area.positions and not dst.cost.area.positions:
        raise LedgerError(f"{op}: area {op.dst} does not keep the positions that {op.src} keeps")
    check_behind(op, dst)
    layouts = src.cost.area.layout, dst.cost.area.layout
    movable = isinstance(layouts[0], Ring) and isinstance(layouts[1], Chunks) and not op.rule.top
    if op.background and (src.busy or dst.busy or not movable):
        raise LedgerError(f"{op}: in the background, a ring's oldest slots move to chunks, one move at a time")
