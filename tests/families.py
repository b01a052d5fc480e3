"""Every model family as a folder that a user would have: random weights from its own config class, its tokenizer as its hub ships it.

What differs between families is what goes wrong with them: which class the tokenizer claims to be, whether a first token is set, which
token pads (or none), what the chat template says around an answer, and what the linears are called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TokenizerKind = Literal["bytes", "metaspace", "wordpiece", "unigram"]

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 256}
GROUPED = {"num_key_value_heads": 1, "head_dim": 16}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {  # multi-head latent attention
    "num_key_value_heads": 2, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
}  # fmt: skip
ROUTED = {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}

CHATML = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
CHATML_ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
QWEN25 = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}" + CHATML + CHATML_ASKS
)
QWEN3 = (
    CHATML + "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)
DEEPSEEK_V3 = DEEPSEEK_R1.replace("<think>\n", "")
DEEPSEEK_V2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}User: {{ m['content'] }}\n\n"
    "{% else %}Assistant: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ strftime_now('%d %b %Y') }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }}[/INST]{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GLM4 = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>\n"
    "{% endif %}"
)
ERNIE45 = (
    "{{ cls_token }}{% for m in messages %}{% if m['role'] == 'user' %}User: {{ m['content'] }}\n"
    "{% else %}Assistant: {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant: {% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as its hub has it."""

    kind: TokenizerKind
    claims: str
    """tokenizer_class of tokenizer_config.json, right or wrong."""
    special: tuple[str, ...]
    named: Mapping[str, str]
    """bos_token, eos_token, pad_token, ... of tokenizer_config.json."""
    first: tuple[str, ...] = ()
    """What its post-processor puts before a text."""
    last: tuple[str, ...] = ()
    template: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else tokenizer_config.json says."""


@dataclass(frozen=True)
class Family:
    """A family in small."""

    name: str
    models: str
    """Some of its models, as people know them."""
    model_type: str
    tokenizer: TokenizerFiles
    config: Mapping[str, Any] = field(default_factory=dict)
    decoder: bool = True
    generates: bool = True
    """Whether the generate method can score with it."""
    exports: bool = True
    """Whether transformers has a classifier of its own for it, and so a stock folder opens there."""
    since: str = ""
    """The version of transformers that came with it, where fenlei takes older ones."""


QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
QWEN = TokenizerFiles(
    "bytes", "Qwen2Tokenizer", QWEN_SPECIAL, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, template=QWEN25,
    more={"add_bos_token": False, "bos_token": None},
)  # fmt: skip
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
DEEPSEEK_SPECIAL = (BEGIN, END, "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
DISTILL = TokenizerFiles(
    "bytes", "LlamaTokenizerFast", DEEPSEEK_SPECIAL, {"bos_token": BEGIN, "eos_token": END, "pad_token": END},
    first=(BEGIN,), template=DEEPSEEK_R1, more={"add_bos_token": True, "add_eos_token": False, "legacy": True},
)  # fmt: skip
LLAMA3_FILES = TokenizerFiles(
    "bytes", "PreTrainedTokenizerFast",
    ("<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}, first=("<|begin_of_text|>",), template=LLAMA3,
)  # fmt: skip
LLAMA2_SPECIAL, LLAMA2_NAMED = ("<unk>", "<s>", "</s>"), {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ADDS_BOS = {"add_bos_token": True, "add_eos_token": False}
BERT_FILES = TokenizerFiles(
    "wordpiece", "BertTokenizer", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"},
    first=("[CLS]",), last=("[SEP]",),
)  # fmt: skip

FAMILIES = (
    Family("Qwen2.5", "Qwen1.5, Qwen2, Qwen2.5, QwQ", "qwen2", QWEN, {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    Family("Qwen3", "Qwen3 0.6B to 32B, Qwen3 Embedding", "qwen3",
           TokenizerFiles(QWEN.kind, QWEN.claims, QWEN.special, QWEN.named, template=QWEN3, more=QWEN.more), GROUPED),
    Family("Qwen2 MoE", "Qwen1.5-MoE, Qwen2-57B-A14B", "qwen2_moe", QWEN,
           {**EXPERTS, "num_key_value_heads": 1, "shared_expert_intermediate_size": 16}),
    Family("Qwen3 MoE", "Qwen3-30B-A3B, Qwen3-235B-A22B", "qwen3_moe",
           TokenizerFiles(QWEN.kind, QWEN.claims, QWEN.special, QWEN.named, template=QWEN3, more=QWEN.more), {**EXPERTS, **GROUPED}),
    Family("DeepSeek-R1 distill, Qwen", "DeepSeek-R1-Distill-Qwen 1.5B to 32B", "qwen2", DISTILL, {"num_key_value_heads": 1}),
    Family("DeepSeek-R1 distill, Llama", "DeepSeek-R1-Distill-Llama 8B, 70B", "llama", DISTILL, {"num_key_value_heads": 1}),
    Family("DeepSeek-V2", "DeepSeek-V2, V2-Lite, V2.5", "deepseek_v2",
           TokenizerFiles("bytes", "LlamaTokenizerFast", DEEPSEEK_SPECIAL, DISTILL.named, first=DISTILL.first, template=DEEPSEEK_V2,
                          more=ADDS_BOS), {**LATENT, **ROUTED, "q_lora_rank": None}),
    Family("DeepSeek-V3", "DeepSeek-V3, R1", "deepseek_v3",
           TokenizerFiles("bytes", "LlamaTokenizerFast", DEEPSEEK_SPECIAL, DISTILL.named, first=DISTILL.first, template=DEEPSEEK_V3,
                          more=ADDS_BOS), {**LATENT, **ROUTED, "q_lora_rank": 16, "n_group": 1, "topk_group": 1}),
    Family("Llama 3", "Llama 3, 3.1, 3.2, 3.3", "llama", LLAMA3_FILES, {"num_key_value_heads": 1}),
    Family("Gemma 3", "Gemma 3 270M, 1B (text)", "gemma3_text",
           TokenizerFiles("metaspace", "GemmaTokenizer", ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
                          {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}, first=("<bos>",),
                          template=GEMMA, more=ADDS_BOS), {**GROUPED, "sliding_window": 16}),
    Family("Mistral", "Mistral 7B, Ministral, Mistral Nemo", "mistral",
           TokenizerFiles("metaspace", "LlamaTokenizer", (*LLAMA2_SPECIAL, "[INST]", "[/INST]"), LLAMA2_NAMED, first=("<s>",),
                          template=MISTRAL, more=ADDS_BOS), {"num_key_value_heads": 1, "sliding_window": None}),
    Family("GLM-4", "GLM-4-9B-0414, GLM-Z1", "glm4",
           TokenizerFiles("bytes", "PreTrainedTokenizerFast",
                          ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
                          {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, first=("[gMASK]", "<sop>"), template=GLM4),
           {**GROUPED, "pad_token_id": 0}),
    Family("GLM-4 (9B-chat)", "GLM-4-9B-chat-hf", "glm",
           TokenizerFiles("bytes", "PreTrainedTokenizerFast",
                          ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"),
                          {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, first=("[gMASK]", "<sop>"), template=GLM4),
           {**GROUPED, "pad_token_id": 0}),
    Family("InternLM3", "InternLM3-8B", "internlm3",
           TokenizerFiles("metaspace", "InternLM3Tokenizer", (*LLAMA2_SPECIAL, "<|im_start|>", "<|im_end|>"),
                          {**LLAMA2_NAMED, "pad_token": "</s>"}, first=("<s>",), template="{{ bos_token }}" + CHATML + CHATML_ASKS,
                          more=ADDS_BOS), {**GROUPED}, exports=False, since="5.23"),
    Family("ERNIE 4.5", "ERNIE-4.5-0.3B", "ernie4_5",
           TokenizerFiles("metaspace", "Ernie4_5_Tokenizer", (*LLAMA2_SPECIAL, "<|begin_of_sentence|>"),
                          {**LLAMA2_NAMED, "pad_token": "<unk>", "cls_token": "<|begin_of_sentence|>"}, template=ERNIE45),
           {**GROUPED, "tie_word_embeddings": True}, exports=False),
    Family("Phi-3", "Phi-3, Phi-3.5, Phi-4, Phi-4-mini", "phi3",
           TokenizerFiles("metaspace", "LlamaTokenizer", (*LLAMA2_SPECIAL, "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
                          {**LLAMA2_NAMED, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}, template=PHI3,
                          more={"add_bos_token": False, "add_eos_token": False}), {"num_key_value_heads": 1, "pad_token_id": 0}),
    Family("Phi-2", "Phi-1.5, Phi-2", "phi",
           TokenizerFiles("bytes", "CodeGenTokenizer", ("<|endoftext|>",),
                          {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})),
    Family("Pythia", "Pythia 14M to 12B", "gpt_neox",
           TokenizerFiles("bytes", "GPTNeoXTokenizer", ("<|endoftext|>", "<|padding|>"),
                          {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"})),
    Family("MiniCPM3", "MiniCPM3-4B", "minicpm3",
           TokenizerFiles("metaspace", "LlamaTokenizer", (*LLAMA2_SPECIAL, "<|im_start|>", "<|im_end|>"),
                          {**LLAMA2_NAMED, "eos_token": "<|im_end|>"}, first=("<s>",), template=CHATML + CHATML_ASKS, more=ADDS_BOS),
           {**LATENT, "q_lora_rank": 16}),
    Family("BERT", "bert-base-chinese, chinese-roberta-wwm-ext, MacBERT", "bert", BERT_FILES, decoder=False, generates=False),
    Family("ERNIE", "ernie-3.0-base-zh and its sizes", "ernie", BERT_FILES, decoder=False, generates=False),
    Family("RoBERTa", "roberta-base", "roberta",
           TokenizerFiles("bytes", "RobertaTokenizer", ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
                          {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>",
                           "sep_token": "</s>", "mask_token": "<mask>"}, first=("<s>",), last=("</s>",)),
           decoder=False, generates=False),
    Family("XLM-R", "xlm-roberta-base, bge-m3", "xlm-roberta",
           TokenizerFiles("unigram", "XLMRobertaTokenizer", ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
                          {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>",
                           "sep_token": "</s>", "mask_token": "<mask>"}, first=("<s>",), last=("</s>",)),
           decoder=False, generates=False),
    Family("ModernBERT", "ModernBERT-base, ModernBERT-large", "modernbert",
           TokenizerFiles("bytes", "PreTrainedTokenizerFast", ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), BERT_FILES.named,
                          first=("[CLS]",), last=("[SEP]",)), decoder=False, generates=False),
    Family("DeBERTa", "deberta-v3-base, mdeberta-v3-base, Erlangshen-DeBERTa-v2", "deberta-v2",
           TokenizerFiles("unigram", "DebertaV2Tokenizer", ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), BERT_FILES.named,
                          first=("[CLS]",), last=("[SEP]",)),
           {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "position_buckets": 8,
            "norm_rel_ebd": "layer_norm", "share_att_key": True, "pooler_hidden_size": 32}, decoder=False, generates=False),
)  # fmt: skip


@dataclass(frozen=True)
class Traits:
    """What fenlei makes of a family, without an option."""

    tokenizer: str
    """The class it is read with."""
    around: str
    """Tokens that it puts before and after a text."""
    pad: str
    adapted: tuple[str, ...]
    """Names of the linears that LoRA goes into."""
    pooling: str
    asks: str
    """What stands between text and answer where it generates, and what ends the answer."""


def traits(family: Family, folder: Path) -> Traits:
    """Of the model in `folder`."""
    import torch

    from fenlei.config import ModelConfig
    from fenlei.labels import LabelSet
    from fenlei.models.backbone import is_decoder, load_network, load_tokenizer
    from fenlei.models.lora import add_lora
    from fenlei.text.instructions import compose
    from fenlei.text.prompts import special_ids

    tokenizer = load_tokenizer(folder)
    before, after = (" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in special_ids(tokenizer))
    network = load_network(folder, LabelSet(("a", "b")), int(tokenizer.pad_token_id), layers=None, dtype=torch.float32)
    pooling = "last token" if is_decoder(network) else "its own"
    adapted = [name for name, module in add_lora(network, ModelConfig()).named_modules() if hasattr(module, "lora_A")]
    short = dict.fromkeys(name.rpartition(".")[2] for name in adapted)
    asks = ""
    if family.generates:
        instruction = compose(tokenizer, "zh", ["a", "b"])
        asks = f"{instruction.template.partition('{text}')[2]} … {instruction.terminator}"
    around = f"{before} … {after}".strip()
    return Traits(type(tokenizer).__name__, around, str(tokenizer.pad_token), tuple(short), pooling, asks)


def table_row(family: Family, found: Traits) -> str:
    """Its line of docs/families.md."""
    export = "yes" if family.exports else "no"
    models = f"{family.models} (transformers {family.since})" if family.since else family.models
    cells = (
        f"**{family.name}**", models, f"`{family.model_type}`", _shown(", ".join(found.adapted)), found.pooling,
        _shown(found.around), _shown(found.pad), _shown(found.asks), export,
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _shown(text: str) -> str:
    """As code in a table's cell."""
    return "`" + text.replace("\n", "↵").replace("|", "\\|") + "`" if text else ""


def save_family(family: Family, folder: Path, texts: Sequence[str]) -> Path:
    """The folder that a hub would give for `family`, in small."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    ids = save_tokenizer(family.tokenizer, folder, texts)
    named = {f"{name.removesuffix('_token')}_token_id": ids[token] for name, token in family.tokenizer.named.items() if token in ids}
    known = {name: named.get(name) for name in ("bos_token_id", "eos_token_id")}
    config = AutoConfig.for_model(family.model_type, **{**SHAPE, "vocab_size": len(ids), **known, **family.config})
    if not family.decoder:
        config.pad_token_id = named["pad_token_id"]
    torch.manual_seed(0)
    build = AutoModelForCausalLM if family.decoder else AutoModelForMaskedLM
    build.from_config(config).save_pretrained(folder)
    return folder


def save_tokenizer(files: TokenizerFiles, folder: Path, texts: Sequence[str]) -> dict[str, int]:
    """tokenizer.json and tokenizer_config.json; the vocabulary comes back."""
    from tokenizers import Tokenizer, processors

    folder.mkdir(parents=True, exist_ok=True)
    made: Tokenizer = {"bytes": _bytes, "metaspace": _metaspace, "wordpiece": _wordpiece, "unigram": _unigram}[files.kind](files, texts)
    made.add_special_tokens([token for token in files.special if token not in ("<think>", "</think>")])
    made.add_tokens([token for token in files.special if token in ("<think>", "</think>")])
    vocabulary = made.get_vocab()
    if files.first or files.last:
        around = [(token, vocabulary[token]) for token in (*files.first, *files.last)]
        made.post_processor = processors.TemplateProcessing(
            single=[*files.first, "$A", *files.last], pair=[*files.first, "$A", *files.last, "$B", *files.last], special_tokens=around
        )
    made.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": files.claims, "model_max_length": 256, **files.named, **files.more}
    if files.template is not None:
        told["chat_template"] = files.template
    (folder / "tokenizer_config.json").write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
    return dict(vocabulary)


def _bytes(files: TokenizerFiles, texts: Sequence[str]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    words = r"\p{N}{1,3}|[^\r\n\p{L}\p{N}]?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(words), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=400, special_tokens=list(files.special), initial_alphabet=alphabet, show_progress=False)
    )
    return made


def _metaspace(files: TokenizerFiles, texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    learnt.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    model = json.loads(learnt.to_str())["model"]
    pieces = [*files.special, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    merges = [tuple(pair) for pair in model["merges"]]
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return made


def _wordpiece(files: TokenizerFiles, texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    latin = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [*files.special, *sorted(set("".join(texts))), *latin, *(f"##{letter}" for letter in latin)]
    vocabulary = {piece: place for place, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def _unigram(files: TokenizerFiles, texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted({letter for letter in "".join(texts) if not letter.isspace()})
    pieces = [*((token, 0.0) for token in files.special), ("▁", -2.0), *((letter, -5.0) for letter in letters)]
    made = Tokenizer(models.Unigram(pieces, unk_id=files.special.index(files.named["unk_token"])))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return made
