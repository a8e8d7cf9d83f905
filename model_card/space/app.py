"""Explore a GPT-1 in the browser: the page of `gpt1 space`, and the app of a Hugging Face Space.

The variables GPT1_MODEL and GPT1_CHOICE_MODEL of a Space choose its models.
"""

import functools
import html
import os
from collections.abc import Callable
from textwrap import shorten

import gradio as gr

from gpt1_hf.inside.explorer import Comparison, Explorer, Token
from gpt1_hf.inside.palette import CLASSES, percent, probability_class
from gpt1_hf.inside.tokens import visible


# System fonts: the page loads nothing from other sites.
FONT = ["system-ui", "sans-serif"]
MONO = ["ui-monospace", "monospace"]
# On a dark page gradio dims custom colours, but keeps black text on them.
CSS = ".dark .probabilities :is(.legend-item, .token.highlighted .text) { color: white !important; }"
LAUNCH = {
    "css": CSS,
    "theme": gr.themes.Default(primary_hue="teal", neutral_hue="slate", font=FONT, font_mono=MONO),
    "footer_links": [],
    "run_history": False,
    "ssr_mode": False,
}
MEAN = "of a token (geometric mean)"
MAX_WORDS = 300  # rows of the tokenizer's table
COLOURS = {name: colour for _, name, colour in CLASSES}


def shows_errors(function: Callable) -> Callable:
    """Show in the page what is wrong with an input."""

    @functools.wraps(function)
    def wrapper(*args):
        try:
            return function(*args)
        except ValueError as error:  # the base class of the package's own errors
            # gradio renders the message as HTML, and it may quote the input.
            raise gr.Error(
                html.escape(shorten(str(error), 400, placeholder="…")),
                title="This does not work",
                print_exception=False,
            ) from error

    return wrapper


def highlighted(tokens: list[Token]) -> list[tuple[str, str | None]]:
    """Tokens with their class of probability; a token that was not predicted has none."""
    classes = [probability_class(token.probability) for token in tokens]
    return [(visible(token.text), known and known[0]) for token, known in zip(tokens, classes, strict=True)]


def highlighted_text(label: str, value: list | None, elem_id: str | None = None) -> gr.HighlightedText:
    return gr.HighlightedText(
        value, label=label, color_map=COLOURS, show_legend=True, elem_id=elem_id, elem_classes="probabilities"
    )


def about(explorer: Explorer) -> str:
    """The models' names and the size of the language model."""
    lm = explorer.scorer.model
    # Names are paths or Hub ids, and are escaped because they can have any characters.
    names = [f"<code>{html.escape(visible(name))}</code>" for name in (explorer.model, explorer.choice_model) if name]
    chooser = f" Multiple choice uses {names[1]}, which was fine-tuned for it." if len(names) > 1 else ""
    return (
        f"Model: **{names[0]}**, {lm.num_parameters() / 1e6:,.1f} million parameters, a context of "
        f"{explorer.scorer.window} tokens.{chooser}"
    )


def how_good(explorer: Explorer) -> str:
    """How well the sentiment heuristic works with this model."""
    n_rows, n_right, n_positive = explorer.sample_sentiment
    is_chance = n_right < n_rows / 2 + n_rows**0.5  # two standard errors of guessing
    verdict = (
        "which is what guessing gives: the answer below is no better than tossing a coin"
        if is_chance
        else f"where guessing gives {n_rows // 2}"
    )
    return (
        f"**How good is that?** Of {n_rows} labelled sentences of SST-2 this model gets {n_right} right, {verdict}. "
        f"It calls {n_positive} of them positive; half of them are."
    )


def answered(function: Callable, *inputs, outputs: int) -> list:
    """Outputs for the inputs that a page opens with; empty if this model cannot handle them."""
    try:
        found = function(*inputs)
    except gr.Error:  # shown when the user presses the button
        return [None] * outputs
    return list(found)


def bars(comparison: Comparison) -> dict[str, float]:
    names = [shorten(visible(text), 90, placeholder="…") for text in comparison.answers]
    if len(set(names)) < len(names):
        names = [f"{index}. {name}" for index, name in enumerate(names, 1)]
    return dict(zip(names, comparison.shares, strict=True))


def table(comparison: Comparison) -> list[list[str]]:
    if comparison.is_cut:
        gr.Warning("The text is longer than the model's context: only a part of it was read.")
    columns = zip(comparison.answers, comparison.scores, comparison.probabilities, comparison.shares, strict=True)
    return [
        [visible(answer), f"{score:.3f}", percent(probability), percent(share)]
        for answer, score, probability, share in columns
    ]


def lines(text: str) -> list[str]:
    return [line for line in (text or "").splitlines() if line.strip()]


def outcome(name: str, title: str, p: str, values: list) -> list[gr.components.Component]:
    """Bars and a table for a comparison, side by side, with their first content."""
    with gr.Row():
        shares = gr.Label(values[0], label=title, elem_id=f"{name}-bars")
        numbers = gr.Dataframe(
            values[1],
            headers=["answer", "log p", "p", "share"],
            label=f"p is the probability {p}",
            interactive=False,
            wrap=True,
            column_widths=["49%", "17%", "19%", "15%"],
            elem_id=f"{name}-table",
        )
    return [shares, numbers]


def build(explorer: Explorer) -> gr.Blocks:
    """The page for a model."""

    @shows_errors
    def generate(prompt, max_new_tokens, temperature, top_p, seed):
        tokens = explorer.generate(prompt, int(max_new_tokens), temperature, top_p, int(seed or 0))
        new = [token for token in tokens if token.probability is not None]
        rows = [
            [
                visible(token.text),
                percent(token.probability),
                " · ".join(f"{visible(text).strip()} {percent(value)}" for text, value in token.alternatives),
            ]
            for token in new
        ]
        return highlighted(tokens), rows

    @shows_errors
    def compare_sentences(first, second):
        comparison = explorer.compare_sentences([first, second])
        read = highlighted(explorer.read(first)), highlighted(explorer.read(second))
        return bars(comparison), table(comparison), *read

    @shows_errors
    def sentiment(text):
        comparison = explorer.sentiment(text)
        return bars(comparison), table(comparison)

    @shows_errors
    def referents(sentence, pronoun, candidates):
        comparison = explorer.referents(sentence, pronoun, lines(candidates))
        return bars(comparison), table(comparison)

    @shows_errors
    def choose(document, question, choices):
        comparison = explorer.choose(document, question, lines(choices))
        return bars(comparison), table(comparison)

    @shows_errors
    def tokenize(text):
        cleaned, words = explorer.tokenize(text)
        n_tokens = sum(len(word.ids) for word in words)
        summary = f"{len(text):,} characters → {len(words):,} words → {n_tokens:,} tokens"
        if len(words) > MAX_WORDS:
            summary += f"; the first {MAX_WORDS} words are shown below"
        pieces = [
            (visible(piece), str(token))
            for word in words[:MAX_WORDS]
            for piece, token in zip(word.pieces, word.ids, strict=True)
        ]
        rows = [
            [visible(word.text), "  ".join(map(visible, word.pieces)), "  ".join(map(str, word.ids))]
            for word in words[:MAX_WORDS]
        ]
        return summary, visible(cleaned), pieces, rows

    with gr.Blocks(title="GPT-1", analytics_enabled=False) as page:
        gr.Markdown(
            "# GPT-1\nTry the language model of *Improving Language Understanding by Generative Pre-Training* "
            "(Radford et al., 2018) on your own text. It reads everything in lower case and continues text in the "
            "style of its training data. Do not rely on what it says."
        )
        gr.Markdown(about(explorer), elem_id="about")
        with gr.Tab("Generate"):
            with gr.Row():
                with gr.Column(scale=2):
                    prompt = gr.Textbox(
                        "It was a dark and stormy night, and", label="Prompt", lines=3, elem_id="generate-input"
                    )
                    with gr.Row():
                        run = gr.Button("Continue", variant="primary", elem_id="generate-run")
                        another = gr.Button("Another, with the next seed", elem_id="generate-another")
                with gr.Column(scale=1):
                    new = gr.Slider(1, 200, 40, step=1, label="New tokens")
                    temperature = gr.Slider(
                        0, 2, 0.8, step=0.1, label="Temperature", info="0 always takes the most likely token"
                    )
                    top_p = gr.Slider(0.05, 1, 0.95, step=0.05, label="Top p")
                    seed = gr.Number(
                        0,
                        label="Seed",
                        info="the same seed gives the same text",
                        precision=0,
                        minimum=0,
                        maximum=2**32 - 1,
                        elem_id="generate-seed",
                    )
            settings = [prompt, new, temperature, top_p, seed]
            first_text, first_rows = answered(generate, *(one.value for one in settings), outputs=2)
            text = highlighted_text("Text, with the probability of each new token", first_text, "generate-text")
            rows = gr.Dataframe(
                first_rows,
                headers=["token", "p", "most probable here"],
                label="p is the model's probability of a new token, at temperature 1",
                interactive=False,
                wrap=True,
                column_widths=["22%", "14%", "64%"],
                elem_id="generate-table",
            )
            gr.on([run.click, prompt.submit], generate, settings, [text, rows], api_visibility="private")
            another.click(lambda seed: (int(seed or 0) + 1) % 2**32, seed, seed, api_visibility="private").then(
                generate, settings, [text, rows], api_visibility="private"
            )

        with gr.Tab("Zero-shot"):
            gr.Markdown(
                "The heuristics of the paper's section 5: a language model's own probabilities answer tasks, without "
                "training. (The fourth, question answering, is on the next tab.)"
            )
            with gr.Tab("Sentiment"):
                gr.Markdown("Which word is more likely after the text and “very”: *negative* or *positive*?")
                gr.Markdown(how_good(explorer), elem_id="sentiment-worth")
                review = gr.Textbox(
                    "A charming story, told with wit and a warm heart.",
                    label="Text",
                    lines=2,
                    elem_id="sentiment-input",
                )
                run = gr.Button("Compare", variant="primary", elem_id="sentiment-run")
                values = answered(sentiment, review.value, outputs=2)
                compared = outcome("sentiment", "Share of the two words", "of the word", values)
                run.click(sentiment, review, compared, api_visibility="private")
            with gr.Tab("Acceptability"):
                gr.Markdown("Which sentence has the higher mean log-probability of its tokens?")
                with gr.Row():
                    first = gr.Textbox(
                        "The farmer showed his sons the new plough.",
                        label="One sentence",
                        elem_id="acceptability-input",
                    )
                    second = gr.Textbox("The farmer show his son the plough new.", label="The other")
                run = gr.Button("Compare", variant="primary", elem_id="acceptability-run")
                values = answered(compare_sentences, first.value, second.value, outputs=4)
                compared = outcome("acceptability", "Share of the two sentences", MEAN, values)
                with gr.Row():
                    reads = [
                        highlighted_text(f"{which}, token by token", value)
                        for which, value in zip(("One", "The other"), values[2:], strict=True)
                    ]
                run.click(compare_sentences, [first, second], [*compared, *reads], api_visibility="private")
            with gr.Tab("Pronoun"):
                gr.Markdown("With which candidate in the pronoun's place is the rest of the sentence more likely?")
                with gr.Row():
                    sentence = gr.Textbox(
                        "The key would not turn in the lock because it was rusted shut.",
                        label="Sentence",
                        scale=3,
                        elem_id="pronoun-input",
                    )
                    pronoun = gr.Textbox("it", label="Pronoun", scale=1)
                candidates = gr.Textbox("The key\nthe lock", label="Candidates, one per line", lines=2)
                run = gr.Button("Compare", variant="primary", elem_id="pronoun-run")
                inputs = [sentence, pronoun, candidates]
                values = answered(referents, *(one.value for one in inputs), outputs=2)
                compared = outcome("pronoun", "Share of the candidates", MEAN, values)
                run.click(referents, inputs, compared, api_visibility="private")

        with gr.Tab("Multiple choice"):
            if explorer.choice_model is None:
                p = MEAN
                gr.Markdown(
                    "Which answer is most likely after text and question, by the mean log-probability of its tokens? "
                    "This is the zero-shot heuristic: the model is not fine-tuned for the task."
                )
            else:
                p = "of the answer"
                gr.Markdown("The probabilities that the fine-tuned multiple-choice head gives the answers.")
            document = gr.Textbox(
                "Gus painted his garden bench on Sunday. He hung up a sign that warned of wet paint. The wind blew "
                "the sign away. The mailman sat down on the bench to rest.",
                label="Text",
                lines=4,
            )
            question = gr.Textbox("", label="Question (optional)")
            choices = gr.Textbox(
                "He stood up with green stripes on his trousers.\nHe read the sign and remained standing.",
                label="Answers, one per line",
                elem_id="choice-input",
                lines=4,
            )
            run = gr.Button("Score", variant="primary", elem_id="choice-run")
            inputs = [document, question, choices]
            values = answered(choose, *(one.value for one in inputs), outputs=2)
            compared = outcome("choice", "Share of the answers", p, values)
            run.click(choose, inputs, compared, api_visibility="private")

        with gr.Tab("Tokenizer"):
            gr.Markdown(
                "How text becomes the model's input: it is cleaned up, lower-cased and split into words; words become "
                "pieces of the vocabulary (`</w>` ends a word), and pieces become ids."
            )
            source = gr.Textbox(
                "“Don’t—it’s  5 o’clock…” said Mr. Grey unhesitatingly.",
                label="Text",
                lines=3,
                elem_id="tokenizer-input",
            )
            run = gr.Button("Tokenize", variant="primary", elem_id="tokenizer-run")
            values = answered(tokenize, source.value, outputs=4)
            summary = gr.Markdown(values[0])
            cleaned = gr.Textbox(values[1], label="1. After clean-up", interactive=False, lines=1)
            pieces = gr.HighlightedText(values[2], label="2. Pieces and ids", elem_id="tokenizer-pieces")
            words = gr.Dataframe(
                values[3],
                headers=["word", "pieces", "ids"],
                label="3. Word by word",
                elem_id="tokenizer-table",
                interactive=False,
                wrap=True,
                column_widths=["34%", "33%", "33%"],
            )
            run.click(tokenize, source, [summary, cleaned, pieces, words], api_visibility="private")
    return page


if __name__ == "__main__":
    model = os.environ.get("GPT1_MODEL", "gpt1-tiny")
    build(Explorer(model, os.environ.get("GPT1_CHOICE_MODEL"))).launch(**LAUNCH)
