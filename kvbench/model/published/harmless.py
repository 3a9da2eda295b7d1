"""Which keys of a configuration cannot change a cache: by name, or because no part of their name tells of one."""

import re

_SUSPECT = re.compile(
    r"window|attn|attention|layer|(^|_)kv|key_value|head|cache|state|ssm|mamba|linear|shar(e|ed|ing)(_|$)|latent|lora"
    r"|rank|index|sink|compress|conv|recurr|block|chunk|pattern|interval|sparse|dilat|stride|memory|expert|moe|_dim$"
    r"|(^|_)swa|retention|delta|evict|pyramid|group"
)
"""Parts of names that tell of a cache, of what a layer is, or of how many parameters it has."""

_HARMLESS = re.compile(
    # tokens, and other parts of the whole
    r".*_token_(id|ids|index)|.*_token|(image|video|audio|speech|vision|mm|img|projector|vq|media|pixel|patch)_.*"
    r"|.*_(processor|image|video)|.*(mtp|nextn).*|num_nextn_predict_layers|ignore_index|id2label|label2id|tokenizer_.*"
    r"|.*_placeholder.*|add_vision_id"
    # rotary embeddings and scales
    r"|(?!no_rope).*rope.*|.*rotary.*|.*alibi.*|logn_.*|query_pre_attn_scalar|attn_?_?temperature_tuning|floor_scale|attn_scale"
    r"|attention_(multiplier|value_scale|in_multiplier|out_multiplier)|.*_logit.*soft_?cap.*|attn_logit_softcapping"
    r"|scale_attn.*|attn_softmax.*|attention_softmax.*|scale_attention_softmax_in_fp32|lm_head_multiplier"
    r"|key_multiplier|ssm_(in|out)_multiplier|ssm_multipliers|logits_scaling|full_attn_(alpha|beta)_factor"
    r"|linear_attn_(alpha|beta)_factor|layernorm_.*_(alpha|beta)|attention_factor"
    # norms' constants and places, dropouts, initial values
    r"|.*_(eps|epsilon)|.*dropout.*|.*pdrop|.*layerdrop|.*init.*|.*_std|residual_in_fp32|layer_norm_position|layernorm"
    r"|apply_residual_connection_post_layernorm|.*_residual.*|layernorm_num_groups|use_parallel_residual|parallel_attn"
    r"|qk_norm_type|qk_layernorm_type|norm_before_gate"
    # routing
    r"|routed_scaling_factor|router_.*|.*router_dtype|.*_router_.*|moe_renormalize|n_group|topk_group|topk_method|.*aux_.*"
    r"|norm_topk_prob|moe_norm.*|expert_selection_fn|moe_loss.*|moe_aux.*|num_expert_group|group_expert_.*|ep_size"
    r"|moe_router.*|moe_capacity.*|moe_token_drop.*|moe_group.*|moe_use_.*|moe_gate.*|output_router_logits|scoring_func"
    r"|moe_dropout.*|moe_orthogonal.*|moe_shared_expert_overlap|num_expert_groups|moe_multimodal.*|moe_softmax.*"
    r"|expert_(model|tensor)_parallel.*|moe_apply.*|moe_input.*|seq_aux|use_routing_bias|zero_expert_type"
    # how a program computes it
    r"|use_cache|_?attn_implementation.*|_?experts_implementation|use_flash_attn.*|_flash_attn.*|flash_attention.*"
    r"|use_(fused|flash|mamba_kernels|mambapy|memory_efficient|mem_eff|fast|xformers|kernel).*|attn_uses_sequence_id"
    r"|is_encoder_decoder|is_decoder|tie_encoder_decoder|chunk_size_feed_forward|mamba_chunk_size|chunk_size|block_size"
    r"|use_associative_scan|gradient_.*|num_logits_to_keep|pretraining_tp|tensor_parallel.*|softmax_.*|pruned_heads"
    r"|output_attentions|output_hidden_states|cross_attention_hidden_size|add_cross_attention|mamba_hidden_act"
    r"|mamba_(norm_before_gate|rms_norm|dt_.*)|time_step_.*|indexer_.*interleave|index_share_for_mtp_iteration|attention_dropout|.*parallel_size"
    r"|head_dim_list|use_bidirectional_attention|_?sliding_window_pattern_type|cache_implementation|layer_norm_type"
    r"|auto_map|architectures|generation_config|.*quant.*|compression_config|transformers_version|problem_type"
    r"|max_window_layers|no_repeat_ngram_size|encoder_no_repeat.*|num_beam_groups|diversity_penalty|unsloth.*"
    r"|model_max_length|use_mem_rope|enable_moe_fp32_combine|for_llm_compressor|output_layer_parallelism|use_parallel_block"
    r"|use_embedding_sharing|layer_switch|order_of_interleaved_layers|shared_moe_mode|mamba_inner_layernorms|cla_share_factor"
    r"|apply_query_key_layer_scaling|post_layer_norm"
    r"|slow_but_exact|use_sliding_window|hidden_dim_multiplier"
)
"""Whole names, lower-case, of keys that look so and change neither."""


def is_harmless(key: str) -> bool:
    """Whether a key that a reader did not ask for changes neither cache nor parameters."""
    name = key.lower()[:200]
    return _SUSPECT.search(name) is None or _HARMLESS.fullmatch(name) is not None
