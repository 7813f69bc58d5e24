"""Folds an adapter into the weights, and gives tables that were one weight a weight each."""

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from videomind.model.adapters import adapter_biases, bare
from videomind.model.disk_format import peft_to_ours
from videomind.model.role_model import RoleModel
from videomind.model.tensors import gathered


def table_modules(model: RoleModel) -> dict[str, nn.Module]:
    """Find the embedding tables that are not an adapter's own.

    Args:
        model: perhaps with adapters in it.

    Returns:
        The name of each table's weight as it is without adapters, and the module that holds it; the input
        table first.
    """
    modules = {}
    for path, module in model.named_modules():
        name = peft_to_ours(path)
        if name.rpartition(".")[2] in model.backbone.tables and "weight" in module._parameters:
            modules[f"{name}.weight"] = module
    return dict(sorted(modules.items(), key=lambda item: not isinstance(item[1], nn.Embedding)))


def untie(model: RoleModel) -> None:
    """Give the output table a weight of its own where it is the input table's; the values stay."""
    table, output = table_modules(model).values()
    if output.weight is table.weight:
        with gathered([table.weight]):
            own = table.weight.detach().clone()
        output.weight = nn.Parameter(own, requires_grad=table.weight.requires_grad)
    model.config.tie_word_embeddings = model.config.get_text_config().tie_word_embeddings = False


def merge_only_adapter(model: RoleModel | PeftModel) -> RoleModel:
    """Fold the one adapter of a model into its weights; without an adapter it stays as it is.

    Raises:
        ValueError: There are several, of which one cannot be chosen.
    """
    if not isinstance(model, PeftModel):
        return model
    if len(model.peft_config) > 1:
        raise ValueError(f"Several adapters ({', '.join(model.peft_config)}) cannot all be merged")
    return merge_adapter(model)


def merge_adapter(model: PeftModel) -> RoleModel:
    """Fold the active adapter into the weights; tables that it trained apart are no longer tied.

    The model then differs from the base it was read from, and remembers where (`RoleModel.changed`). Weights
    may be sharded: one layer after the other is made whole, by every process.
    """
    role, inner = model.active_adapter, bare(model)
    config = model.peft_config[role]
    inner.changed |= {peft_to_ours(name) for name in adapter_biases(model, role)}
    if config.modules_to_save or config.trainable_token_indices:
        untie(inner)
        inner.changed |= table_modules(inner).keys()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer):
            with gathered(module.parameters(), modify=True):
                module.merge(adapter_names=[role])
            if role in getattr(module, "lora_A", ()):
                inner.changed.add(peft_to_ours(f"{name}.weight"))
    return model.unload()
