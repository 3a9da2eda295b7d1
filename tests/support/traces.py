"""Files of traces that a test writes by hand."""

import json

AZURE_HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN_HEADER = "arrived_at,num_prefill_tokens,num_decode_tokens\n"
LENGTHS_HEADER = "num_prefill_tokens,num_decode_tokens\n"


def write(folder, content, name="trace.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def row(timestamp, tokens, output, ids):
    return json.dumps({"timestamp": timestamp, "input_length": tokens, "output_length": output, "hash_ids": ids})
