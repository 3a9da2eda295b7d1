"""Prefix reuse: which blocks of a trace's prompts a cache of a given size would have held.

A prompt reuses its longest run of blocks, from its start, that are held when it arrives; then all its blocks are held,
and others make room. Two blocks are the same if they and everything before them have the same ids. A prompt may be
reused whole; generated tokens are not held, since traces do not say which blocks they become.

Kinds of reuse:

- `block_hash`: each block is held and evicted by itself, as in vLLM's prefix cache. Under `lru` a prompt's blocks are
  touched last to first, so that within a sequence the last block is evicted first and no block outlives the one before
  it. Under `fifo` blocks leave in the order in which they came to the device, whichever blocks need them.
- `radix`: blocks live in runs, the nodes of a radix tree, as in SGLang's RadixAttention. A prompt that leaves a run in
  the middle splits it. Only a leaf is evicted, and whole: that frees up to a run less one block more than was needed.
  Reuse is by token where blocks are single tokens.
- `radix_trimmed`: the same tree, but a leaf loses no more blocks than are needed, and those of a run that a prompt did
  not use are not refreshed by it. Under `lru` and with equal blocks it holds exactly what `block_hash` holds.

Prompts are those of the trace's contents, in the runs that a fleet has (`runs`). Of `block_hash` all but `fifo` are the
cache of a fleet's replica, and prompts take no time (`replay`). It lets no block outlive the one before it, so that
what leaves in the order of coming has blocks of its own (`queued`). A radix tree's runs are other ones (`radix`): they
come about as prompts come, a split refreshes the part that a prompt did not use, and they leave whole.

Policies: `lru`, `fifo`, `lfu` (of `block_hash`: the block that was found fewest times, of those at ends of sequences),
and `optimal`, Belady's: the block whose next use lies furthest ahead is evicted. A block is never used sooner than the
one before it, so that the optimum over blocks evicts ends of sequences only. It is the optimum of every kind of reuse,
and of every tier with those above it together.
"""
