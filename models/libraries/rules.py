"""Small values for the fields of a library's configuration, by rules on their names.

No table of models: a rule says what a name means in every family (`num_attention_heads`, `n_head`:
how many heads), and equal values stay equal, as configurations of parts refer to one another's
sizes. Imports nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

VOCABULARY, HIDDEN, INNER, HEAD, HEADS, LAYERS = 512, 64, 128, 16, 4, 2
#: Widths in lists, of stages, are divided by this where they stay above 8.
_STAGE_DIVISOR = 8
#: Size of an image for a model that halves it in stages.
_STAGED_IMAGE = 64
#: Patches along a side of an image.
_GRID = 4

_LAYERS = re.compile(
    r"((num|n)_)?((hidden|encoder|decoder|attention|transformer|text|vision|\w*encoder\w*|\w*decoder\w*)_)?"
    r"(layers?|blocks|depth)|num_hidden_layers|\w*_(num_hidden|num)_layers|num_layers_per_\w+"
    r"|num_(single_)?layers|\w*_depth|num_attention_blocks|num_transformer_\w+layers"
)
_NO_LAYERS = re.compile(
    r".*(window|feat_extract|residual|adapter|shared|nextn|upsampl|subsampl|conv|downsampl|out|max"
    r"|aux|predict|feature|mask).*"
)
_HEADS = re.compile(r"(\w*_)?(num|n)_(\w*_)?heads?|(\w*_)?attention_heads|(\w*_)?heads")
_FEWER = re.compile(r".*(key_value|kv|_key_heads|num_query_groups|multi_query_group).*")
_HEAD = re.compile(
    r"(\w*_)?(head_dim|head_size|d_kv|dim_head|d_head|attention_key_size|head_width)"
)
_INNER = re.compile(
    r"(\w*_)?(intermediate_size|intermediate_dim|ffn_dim|ffn_hidden_size|mlp_dim|d_ff|n_inner|ffn_size"
    r"|inner_dim|mlp_hidden_size|dim_feedforward|feed_?forward_\w+|mlp_inner\w*|feedforward_size)"
)
_HIDDEN = re.compile(
    r"(\w*_)?(hidden_size|hidden_dims?|hidden_dimension|d_model|n_embd|embed_dim|embedding_size"
    r"|embedding_dim|proj(ection)?_(dim|size)|dim|dims|width|hidden_channels|channels|num_filters|channel"
    r"|emb_size|latents|bottleneck_size|n_state|conv_size|lru_width|projector_size|features|feature_size)"
    r"|dim_\w+|\w*_dim_\w+"
)
_FIXED_WIDTH = re.compile(
    r"(num|in|input|audio|img|image|out)_channels|channels|.*(kernel|conv_dim|rope_dim|feature_proj|bins).*"
    r"|num_mel_\w+|input_dim|output_dim|out_dim|input_feat_per_channel"
)
_EXPERTS = re.compile(r"(\w*_)?(num|n)_(\w*_)?experts|moe_num_experts")
_ACTIVE = re.compile(
    r".*(experts_per_tok(en)?|top_?k_experts|moe_top_?k|moe_k|router_top_k|experts_top_?k)"
)
_GROUPS = re.compile(r"n_group|topk_group|num_expert_groups?")
_SHARED = re.compile(r"(\w*_)?(num|n)_shared_experts?")
_COEFFICIENT = re.compile(r"(width|depth)_(coefficient|multiplier|mult)")
_VOCABULARY = re.compile(
    r"(\w*_)?vocab_size\w*|\w+_vocab|num_embeddings|codebook_size|(\w*_)?num_buckets"
)
_MOST: tuple[tuple[re.Pattern[str], int], ...] = (
    (re.compile(r"(\w*_)?lora_rank|time_step_rank|\w*_rank"), 32),
    (re.compile(r"(\w*_)?rotary_dim"), 8),
    (re.compile(r"index_topk"), 8),
    (re.compile(r"(\w*_)?(sliding_window(_size)?|local_attention|attention_window)"), 8),
    (re.compile(r"(\w*_)?num_(queries|latents|query_tokens|object_queries)|num_q\w*"), 16),
    (re.compile(r"max_source_positions|max_length"), 64),
    (re.compile(r"num_kv_shared_layers"), 0),
    (re.compile(r"(\w*_)?num_groups|n_groups|num_norm_groups"), 4),
    (re.compile(r"max_text_seq_length|text_len\w*"), 8),
    (re.compile(r"first_k_dense_replace|num_nextn_predict_layers"), 1),
)
_STAGES = re.compile(
    r".*(hidden_sizes|dims|channels|embed_dim|embed_dims|widths|conv_dim|out_channels)"
)
_NO_STAGES = re.compile(
    r".*(kernel|patch|pool|image|grid|window|bin|strid|ratio|rate|dilation|rope).*"
)
_DEPTHS = re.compile(
    r"(\w*_)?(depths?|layers|num_blocks|num_layers|numb_of_layers|layers_per_block|blocks)"
)
_INDICES = re.compile(r".*(_ind(ex|ices|exes)|_layers?|_layer_ids?|_idxs?)")
_TOKEN = re.compile(r"(\w*_)?(token_ids?|token_index|token)|\w*_id|\w*_ids")
#: What fields become that a class needs and has no value for.
_UNSET = (
    (_ACTIVE, 2),
    (_GROUPS, 1),
    (_SHARED, 1),
    (re.compile(r"(num|n)_(local_|routed_)?experts"), 4),
    (re.compile(r"vocab_size"), VOCABULARY),
    (re.compile(r"num_key_value_heads"), HEADS),
    (re.compile(r"prediction_length"), 8),
    (re.compile(r"pad_token_id"), 1),
    (re.compile(r"mask_token_id"), 3),
    (re.compile(r"image_token_(id|index)"), 5),
    (re.compile(r"in_channels"), 4),
    (re.compile(r"sample_size"), 16),
)
#: And those of a class that cuts images into patches, which others must not have.
_UNSET_PATCHES = (
    (re.compile(r"patch_size"), 2),
    (re.compile(r"cross_attention_dim|caption_channels"), HIDDEN),
)
_IMAGES = re.compile(r"(\w*_)?(image_size|img_size|sample_size|resolution|image_resolution)")
_A_SIZE = re.compile(r"\w+_(input_size|output_size|in_size|out_size|input_dim|output_dim|out_dim)")
#: Fields of a configuration that no model's shapes depend on.
_IGNORED = ("id2label", "label2id", "transformers_version")


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of a configuration that is made small.

    divisor: widths are divided by it, and heads kept, instead of each being set to one size; 0:
    set. stages: widths in lists are divided too. images: they get smaller. vocabulary: it does.
    heads: what a head holds gets smaller; else there are fewer of them, in wider layers.
    unset: fields that the class needs and leaves open get values. patches: so do those without
    which it does not cut images into patches. each: layers of each kind, where kinds are listed.
    """

    divisor: int = 0
    stages: bool = True
    images: bool = True
    vocabulary: bool = True
    heads: bool = True
    unset: bool = False
    patches: bool = False
    each: int = 1

    @property
    def hidden(self) -> int:
        """Width of a layer."""
        return HIDDEN if self.heads else 4 * HIDDEN


#: The sizes to try, the smallest first: a class may rely on what another size makes untrue.
SIZES = (
    Size(),
    Size(unset=True),
    Size(unset=True, patches=True),
    Size(each=2),
    Size(stages=False),
    Size(heads=False),
    Size(divisor=8),
    Size(images=False),
    Size(divisor=8, stages=False),
    Size(divisor=4, images=False, stages=False),
    Size(divisor=1, stages=False),
    Size(divisor=1, stages=False, images=False, vocabulary=False),
)


def small(values: Mapping[str, Any], ids: dict[int, int], size: Size) -> dict[str, Any]:
    """The fields that differ in a small configuration, with their values there.

    values: all of a configuration's fields; those that are configurations themselves are left out
    by the caller. ids: tokens beyond the small vocabulary with what they become; shared among the
    parts of one model, and added to.
    """
    known = {n: v for n, v in values.items() if n not in _IGNORED}
    found: dict[str, Any] = {}
    for name, value in known.items():
        if value is None and size.unset:
            unset = _UNSET + (_UNSET_PATCHES if size.patches else ())
            found |= {name: v for pattern, v in unset if pattern.fullmatch(name)}  # noqa: B035
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int):
            found[name] = _number(name, value, known, ids, size)
        elif isinstance(value, list | tuple) and value:
            found[name] = _listed(name, value, known, ids, size)
        elif isinstance(value, float) and _COEFFICIENT.fullmatch(name):
            found[name] = min(value, 0.1 if name.startswith("depth") else 1.0)
    _as_equal(known, found)
    if size.unset and known.get("extra_in_channels") == 0:  # an embedding of the step, sin and cos
        found["extra_in_channels"] = 2 * found["block_out_channels"][0]
    if size.heads:
        _heads_times_size(known, found)
    _attention_width(known, found)
    _layers(known, found, size.each)
    for name, value in known.items():
        if isinstance(value, dict) and "rope" in name and size.heads:
            found[name] = _rotary(value, known, found)
        if isinstance(value, list | tuple) and "axes" in name:
            found[name] = _axes(value, known, found)
    qk = ("qk_nope_head_dim", "qk_rope_head_dim")
    if "qk_head_dim" in found and known["qk_head_dim"] == sum(known.get(n) or 0 for n in qk):
        found["qk_head_dim"] = sum(found[n] for n in qk)
    return {n: v for n, v in found.items() if v != known[n]}


def _number(
    name: str, value: int, known: Mapping[str, Any], ids: dict[int, int], size: Size
) -> int:
    divisor = size.divisor
    if _TOKEN.fullmatch(name):
        return _token(value, ids) if size.vocabulary else value
    if _IMAGES.fullmatch(name):
        return _image(value, known) if size.images else value
    if _VOCABULARY.fullmatch(name):
        return min(value, VOCABULARY) if size.vocabulary else value
    for pattern, most in _MOST:
        if pattern.fullmatch(name):
            return min(value, most)
    if _EXPERTS.fullmatch(name) and not _ACTIVE.fullmatch(name):
        return min(value, 4)
    if _ACTIVE.fullmatch(name):
        return min(value, 2)
    if _GROUPS.fullmatch(name) or _SHARED.fullmatch(name):
        return min(value, 1)
    if _LAYERS.fullmatch(name) and not _NO_LAYERS.fullmatch(name):
        return min(value, LAYERS)
    if divisor:
        wide = any(p.fullmatch(name) for p in (_HEAD, _INNER, _HIDDEN)) and value >= 4 * divisor
        return value // divisor if wide and not _FIXED_WIDTH.fullmatch(name) else value
    if _HEADS.fullmatch(name) or _FEWER.fullmatch(name):
        return _heads(name, value, known, size)
    if _HEAD.fullmatch(name) and not size.heads:
        return value
    if _HEAD.fullmatch(name):
        return min(value, 2 * HEAD if name.startswith("index") else HEAD)
    if _INNER.fullmatch(name):
        return min(value, INNER // 2 if "moe" in name or "expert" in name else INNER)
    if _HIDDEN.fullmatch(name) and not _FIXED_WIDTH.fullmatch(name):
        return min(value, size.hidden)
    return value


def _heads(name: str, value: int, known: Mapping[str, Any], size: Size) -> int:
    if not size.heads and (old := _ratio(known.get("hidden_size"), value)):
        return min(value, max(1, size.hidden // (known.get("head_dim") or old)))
    if not _FEWER.fullmatch(name):
        return min(value, HEADS)
    others = [v for n, v in known.items() if _HEADS.fullmatch(n) and not _FEWER.fullmatch(n)]
    whole = any(v == value for v in others)
    return min(value, HEADS if whole else HEADS // 2)


def _token(value: int, ids: dict[int, int]) -> int:
    """A token of the small vocabulary; others from its end, one for each."""
    if value < VOCABULARY - 64:
        return value
    return ids.setdefault(value, VOCABULARY - 1 - len(ids))


def _image(value: int, known: Mapping[str, Any]) -> int:
    patch = known.get("patch_size")
    if isinstance(patch, list | tuple) and patch:
        patch = patch[-1]
    staged = any(_DEPTHS.fullmatch(n) and isinstance(v, list | tuple) for n, v in known.items())
    wanted = _STAGED_IMAGE if staged or not isinstance(patch, int) else _GRID * patch
    return min(value, wanted)


def _listed(
    name: str, value: Any, known: Mapping[str, Any], ids: dict[int, int], size: Size
) -> Any:
    kind = type(value)
    if name.endswith("_types") and isinstance(value[0], list):  # [[kinds, how many times], ...]
        return [[kinds, 1] for kinds, _ in value[:1]]
    if not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        return value
    if _TOKEN.fullmatch(name):
        return kind(_token(v, ids) if size.vocabulary else v for v in value)
    if _IMAGES.fullmatch(name):
        return kind(_image(v, known) if size.images else v for v in value)
    if _DEPTHS.fullmatch(name) and size.stages:
        return kind(min(v, LAYERS) for v in value)
    stages = _STAGES.fullmatch(name) and not _NO_STAGES.fullmatch(name) and len(value) > 1
    if stages and size.stages and name.startswith("block"):  # norms have groups of 32
        return kind(min(32 * v // min(value), HIDDEN) for v in value)
    if stages and size.stages and min(value) >= 4 * _STAGE_DIVISOR:
        return kind(v // _STAGE_DIVISOR for v in value)
    return value


def _as_equal(known: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Gives sizes that no rule knows the value of one that was equal; scales those of a network
    whose widths are a coefficient's."""
    for name, old in known.items():
        if isinstance(old, float) and name.startswith("width_") and found.get(name, old) < old:
            for wide, own in known.items():
                if (
                    isinstance(own, int)
                    and _HIDDEN.fullmatch(wide)
                    and not _FIXED_WIDTH.fullmatch(wide)
                ):
                    found[wide] = int(own * found[name] / old)
    widths = {
        known[n]: v
        for n, v in found.items()
        if isinstance(v, int) and v < (known[n] or 0) and _HIDDEN.fullmatch(n)
    }
    for name, value in found.items():
        if value == known[name] and isinstance(value, int) and _A_SIZE.fullmatch(name):
            found[name] = widths.get(value, value)


def _heads_times_size(known: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Keeps heads x size of a head equal to a width, or a multiple, where it was."""
    for heads in (n for n in known if _HEADS.fullmatch(n) and not _FEWER.fullmatch(n)):
        prefix = re.sub(r"(num|n)_(\w*_)?heads?$|attention_heads$|heads$", "", heads)
        for size in (
            n for n in known if n in (f"{prefix}head_dim", f"{prefix}d_head", "head_dim", "d_kv")
        ):
            for width in ("hidden_size", "d_model", "n_embd", "embed_dim", "dim"):
                if not all(isinstance(known.get(n), int) for n in (heads, size, width)):
                    continue
                expand = known.get("expand") or known.get(f"{prefix}expand") or 1
                if known[heads] * known[size] in (known[width], known[width] * expand):
                    times = known[heads] * known[size] // known[width]
                    found[heads] = max(1, found[width] * times // found[size])


def _attention_width(known: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Keeps a width that attention has of its own the same multiple of the layer's."""
    wide, heads, head = "attention_hidden_size", "num_attention_heads", "attention_head_dim"
    times = _ratio(known.get(wide), known.get("hidden_size"))
    if times and known[wide] == times * known["hidden_size"]:
        found[wide] = times * found["hidden_size"]
        if known.get(head) and known[head] == _ratio(known[wide], known.get(heads)):
            found[head] = found[wide] // found[heads]


def _layers(known: Mapping[str, Any], found: dict[str, Any], each: int) -> None:
    """Layers of each kind where lists say one for each layer, and indices of layers that exist."""
    counts = [
        (n, known[n])
        for n in found
        if isinstance(known[n], int)
        and found[n] < known[n]
        and _LAYERS.fullmatch(n)
        and not _NO_LAYERS.fullmatch(n)
    ]
    for count, old in counts:
        lists = {
            n: v
            for n, v in known.items()
            if isinstance(v, list | tuple) and len(v) == old and not _DEPTHS.fullmatch(n)
        }
        chosen = _of_each_kind(lists, old, each)
        indices = {
            n: v
            for n, v in known.items()
            if isinstance(v, list | tuple)
            and v
            and n not in lists
            and _INDICES.fullmatch(n)
            and all(isinstance(i, int) and not isinstance(i, bool) for i in v)
            and max(v) >= len(chosen)
            and max(v) <= old
        }
        need = max([len(chosen), *(len([i for i in v if i > 0]) for v in indices.values())])
        while len(chosen) < min(need, old):
            chosen = sorted({*chosen, next(i for i in range(old) if i not in chosen)})
        found[count] = len(chosen)
        for name, value in lists.items():
            found[name] = type(value)(value[i] for i in chosen)
        for name, value in indices.items():
            found[name] = _clipped(value, len(chosen), old)


def _of_each_kind(lists: Mapping[str, Any], old: int, each: int) -> list[int]:
    """The first layers of each kind, at least two layers; a kind is what all lists say of it."""
    chosen: dict[str, list[int]] = {}
    for index in range(old):
        chosen.setdefault(repr([value[index] for value in lists.values()]), []).append(index)
    found = sorted(index for kind in chosen.values() for index in kind[:each])
    while len(found) < min(LAYERS, old):
        found = sorted({*found, next(i for i in range(old) if i not in found)})
    return found


def _clipped(value: Any, count: int, old: int) -> Any:
    """The last layers, as many as were named, where all of them are counted from the first."""
    last = count if max(value) == old else count - 1
    positive = [i for i in value if i > 0]
    within = iter(range(max(0, last - len(positive) + 1), last + 1))
    return type(value)(next(within, last) if i > 0 else i for i in value)


def _rotary(value: Any, known: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    """Rotary embeddings whose sections, or factors, are as many as the smaller heads have pairs."""
    heads = found.get("num_attention_heads") or 1
    old = known.get("head_dim") or _ratio(
        known.get("hidden_size"), known.get("num_attention_heads")
    )
    new = found.get("head_dim") or _ratio(found.get("hidden_size"), heads)
    changed = {}
    for name, one in value.items():
        if isinstance(one, dict):
            changed[name] = _rotary(one, known, found)
        elif isinstance(one, list | tuple) and one and old and new:
            changed[name] = type(one)(_sections(one, old, new))
    return {**value, **changed}


def _axes(value: Any, known: Mapping[str, Any], found: Mapping[str, Any]) -> Any:
    """Even numbers of a head's places for each axis, where they were all of a head's."""
    width = ("hidden_size", "num_attention_heads")
    sizes = [(known.get(n), found.get(n)) for n in ("attention_head_dim", "head_dim")]
    sizes.append((_ratio(*map(known.get, width)), _ratio(*map(found.get, width))))
    for old, new in sizes:
        if old and new and old == sum(value) != new:
            others = [max(2, v * new // old // 2 * 2) for v in value[1:]]
            return type(value)([new - sum(others), *others])
    return value


def _ratio(one: Any, other: Any) -> int:
    return one // other if isinstance(one, int) and isinstance(other, int) and other else 0


def _sections(value: Any, old: int, new: int) -> list[Any]:
    """Integers that sum to half a head, or a factor for each pair of it, for a smaller head."""
    if not all(isinstance(v, int) for v in value):
        return list(value[: max(1, len(value) * new // old)])
    total = sum(value) * new // old
    first = [max(1, v * new // old) for v in value[1:]]
    return [max(1, total - sum(first)), *first]


def size_of(names: Iterable[str], known: Mapping[str, Any]) -> Any:
    """The value of the first name that has one; None if none has."""
    return next((known[n] for n in names if known.get(n) is not None), None)
