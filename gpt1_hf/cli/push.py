"""Push a saved model to the Hub, with its code and model card."""

from .flags import Parser


def main(argv: list[str]):
    parser = Parser("push", f"{__doc__} The access token comes from `hf auth login` or from HF_TOKEN.")
    parser.add_argument("model", help="Folder of a saved model or adapter, or gpt1-tiny.")
    parser.add_argument("repo", help="owner/name, or name for a repository of your own; created if it does not exist.")
    parser.add_argument(
        "--private", action="store_true", help="Create the repository as private. An existing public one is an error."
    )
    parser.add_argument("--revision", help="Branch to push to; created if it does not exist. Default: main.")
    parser.add_argument("--commit_message", help="Commit message.")
    parser.add_argument(
        "--include",
        nargs="+",
        default=[],
        metavar="FILE",
        help="More files of the folder to send, such as results.json or predictions.jsonl.",
    )
    parser.add_argument(
        "--base_model",
        metavar="REPO",
        help="For an adapter whose base model is a local folder: that model's repository on the Hub.",
    )
    args = parser.parse_args(argv)

    from ..hub.push import push

    sent = push(
        args.model,
        args.repo,
        args.private or None,
        args.revision,
        args.commit_message,
        args.include,
        args.base_model,
    )
    if sent.changed:
        print(f"pushed {len(sent.files)} files to {sent.url} (commit {sent.commit[:8]}): {', '.join(sent.files)}")
    else:
        print(f"{sent.url} is already up to date (commit {sent.commit[:8]})")
