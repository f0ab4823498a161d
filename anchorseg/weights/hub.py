"""Models to the Hugging Face hub: whole model folders, with tokenizer and card."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from anchorseg.method.model_folder import check_weights, read_config
from anchorseg.method.modeling import AnchorSegModel
from anchorseg.method.tokens import TokenRegistry
from anchorseg.weights.folder import save_model
from utils.errors import OutputError, SettingsError
from utils.hub import hub_errors, is_hub_name


def push_to_hub(
    model: AnchorSegModel,
    registry: TokenRegistry,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload AnchorSeg model",
) -> str:
    """Upload a model as a whole folder: weights, configuration, tokenizer, card.

    A model of a run has more to say of itself in the folder that merge_lora_weights.py writes: see `push_folder`.

    Args:
        model: a merged model.
        registry: its tokenizer.
        repo_id: OWNER/NAME, made if it is not there.
        private: of a repository that is made; None is the owner's default.
        token: of the hub; None takes that of the environment or the login.
        revision: branch to upload to, made if it is not there; None is the main one.
        commit_message: of the upload.

    Returns:
        The address of the commit.

    Raises:
        SettingsError: if `repo_id` is no such name.
        OutputError: if the hub cannot be reached or refuses.
    """
    with TemporaryDirectory() as folder:
        save_model(model, registry, folder)
        return push_folder(
            folder, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload AnchorSeg model",
) -> str:
    """Upload a model folder as it is, card included, after checking that it is a complete one.

    Args:
        folder: that merge_lora_weights.py, `save_model` or scripts.convert_checkpoint wrote.
        repo_id: see `push_to_hub`, as are the others.
        private: see there.
        token: see there.
        revision: see there.
        commit_message: see there.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: if the folder is not a complete model of this project.
        SettingsError: if `repo_id` is no such name.
        OutputError: if the hub cannot be reached or refuses.
    """
    if not is_hub_name(repo_id):
        raise SettingsError(f"{repo_id!r} is no name on the hub; give OWNER/NAME")
    folder = Path(folder)
    check_weights(folder, read_config(folder), AnchorSegModel)
    from huggingface_hub import HfApi

    def not_uploaded(reason: str) -> OutputError:
        return OutputError(f"{repo_id} could not be written on the hub: {reason}")

    api = HfApi(token=token, library_name="anchorseg")
    with hub_errors(not_uploaded):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, revision=revision, commit_message=commit_message
        )
    return str(commit.commit_url)
