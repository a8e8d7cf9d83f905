"""A model's view of one text: its tokens, and the probabilities of tokens and of answers.

The scores are those of `gpt1 zero-shot` (paper §5) and of a fine-tuned multiple-choice head. The text is typed by a
user, so it may be empty, very long, or any Unicode.
"""

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from datasets import Dataset
from scipy.special import softmax
from transformers import AutoModelForMultipleChoice, PreTrainedModel

from ..analysis.zero_shot import (
    SENTIMENTS,
    Answers,
    Scorer,
    ZeroShotArguments,
    answer,
    open_scorer,
    score_answers,
    score_referents,
    score_sentences,
    score_sentiments,
)
from ..checkpoints.loading import open_config, open_model, open_processor
from ..errors import GPT1Error
from ..processing_gpt1 import GPT1Processor
from .generation import sample
from .tokens import token_text, token_texts


MAX_CHARACTERS = 20_000  # of a text: many times the model's context
MAX_ANSWERS = 10


@dataclass(frozen=True)
class Token:
    """
    A token: its piece of the decoded text, with the space before it; the model's probability of it, at temperature 1,
    if it was predicted; and the most probable tokens in its place with their probabilities.
    """

    text: str
    probability: float | None = None
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Word:
    """A word after clean-up, with its pieces and token ids."""

    text: str
    pieces: list[str]
    ids: list[int]


@dataclass(frozen=True)
class Comparison:
    """
    Answers with their scores: log-probabilities, or means of them over tokens. `is_cut` says whether the text was
    longer than the model's context, so that a part of it was not read.
    """

    answers: list[str]
    scores: list[float]
    is_cut: bool

    @property
    def probabilities(self) -> list[float]:
        """The scores as probabilities. A mean over tokens gives the geometric mean of their probabilities."""
        return np.exp(self.scores).tolist()

    @property
    def shares(self) -> list[float]:
        """The probabilities, divided by their sum."""
        return softmax(self.scores).tolist()


class Explorer:
    """
    A model to explore. Its files are read when they are first needed.

    Args:
        model (`str`, *optional*, defaults to `"gpt1-tiny"`):
            Causal language model: folder, Hub id, or `gpt1-tiny`.
        choice_model (`str`, *optional*):
            Checkpoint that was fine-tuned for multiple choice. Without it the language model answers.
    """

    def __init__(self, model: str = "gpt1-tiny", choice_model: str | None = None):
        self.model = model
        self.choice_model = choice_model

    @cached_property
    def scorer(self) -> Scorer:
        """The language model and its tokenizer."""
        return replace(open_scorer(ZeroShotArguments(model=self.model)), desc=None)

    @cached_property
    def chooser(self) -> tuple[GPT1Processor, PreTrainedModel]:
        """
        The fine-tuned model's processor, and the model.

        Raises:
            GPT1Error: if it was fine-tuned for another format.
        """
        processor = open_processor(self.choice_model)
        if not isinstance(processor, GPT1Processor) or processor.input_format != "multiple_choice":
            raise GPT1Error(
                f"model {self.choice_model!r} was not fine-tuned for multiple choice: give one from `gpt1 finetune "
                "--task race` or `--task story_cloze`"
            )
        model = open_model(AutoModelForMultipleChoice, self.choice_model, open_config(self.choice_model))
        return processor, model.eval().to(self.scorer.model.device)

    def generate(
        self, prompt: str, max_new_tokens: int = 40, temperature: float = 0.8, top_p: float = 0.95, seed: int = 0
    ) -> list[Token]:
        """
        Continue a prompt, with the probability of each new token and of the three most probable ones in its place.

        The probabilities are the model's own, without temperature and `top_p`.

        Raises:
            GPT1Error: if the prompt is empty, or too long for the model's context.
        """
        tokenizer, lm = self.scorer.tokenizer, self.scorer.model
        prompt = self._checked(prompt, "the prompt")
        output = sample(tokenizer, lm, prompt, max_new_tokens, temperature, top_p, seed, output_logits=True)
        return self._tokens(output.sequences[0].tolist(), torch.cat(output.logits))

    def read(self, text: str, n_alternatives: int = 3) -> list[Token]:
        """
        A text's tokens with their probabilities, given all tokens before them, and the most probable ones in their
        place. The first token has none.

        Raises:
            GPT1Error: if the text is empty, or longer than the model's context.
        """
        (ids,) = self.scorer.encode([self._checked(text, "the text")])
        if len(ids) > self.scorer.window:
            raise GPT1Error(
                f"the text is {len(ids)} tokens long, and the model reads {self.scorer.window}: shorten it"
            )
        model = self.scorer.model.eval()
        with torch.inference_mode():
            logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0, :-1]
        return self._tokens(ids, logits, n_alternatives)

    def _tokens(self, ids: list[int], logits: torch.Tensor, n_alternatives: int = 3) -> list[Token]:
        """Tokens of a sequence; `logits` `(predicted, vocab)` are those of its last tokens."""
        tokenizer = self.scorer.tokenizer
        texts = token_texts(tokenizer, ids)
        n_given = len(ids) - len(logits)
        tokens = [Token(text) for text in texts[:n_given]]
        predicted = zip(texts[n_given:], ids[n_given:], logits.float().softmax(-1), strict=True)
        for text, token, probabilities in predicted:
            values, best = probabilities.topk(n_alternatives)
            spelled = [token_text(tokenizer, other) for other in best.tolist()]
            tokens.append(Token(text, probabilities[token].item(), tuple(zip(spelled, values.tolist(), strict=True))))
        return tokens

    def compare_sentences(self, sentences: list[str]) -> Comparison:
        """CoLA's heuristic: the more acceptable sentence has the higher mean log-probability of its tokens."""
        rows = [{"text": self._checked(text, f"sentence {index}")} for index, text in enumerate(sentences, 1)]
        answers = score_sentences(self.scorer, Dataset.from_list(rows))
        scores = Answers([[score for (score,) in answers.scores]], [any(answers.cut)])
        return _comparison([row["text"] for row in rows], scores)

    def sentiment(self, text: str) -> Comparison:
        """SST-2's heuristic: whether "negative" or "positive" is more likely after a text and "very"."""
        rows = Dataset.from_list([{"text": self._checked(text, "the text")}])
        return _comparison(list(SENTIMENTS), score_sentiments(self.scorer, rows))

    @cached_property
    def sample_sentiment(self) -> tuple[int, int, int]:
        """
        Test [`sentiment`] on the packaged sample of SST-2, which is half positive. Returns the numbers of rows, of
        right answers and of "positive" answers.
        """
        _, predictions = answer(self.scorer, ZeroShotArguments(model=self.model, task="sst2", sample=True))
        (rows,) = predictions.values()
        return (
            len(rows),
            sum(row["prediction"] == row["label"] for row in rows),
            sum(row["prediction"] == SENTIMENTS.index("positive") for row in rows),
        )

    def referents(self, sentence: str, pronoun: str, candidates: list[str]) -> Comparison:
        """
        The heuristic for Winograd schemas: the candidate that makes the rest most likely in the pronoun's place.

        Raises:
            GPT1Error: if a text is empty, the sentence lacks the pronoun, or nothing follows it.
        """
        row = {
            "text": self._checked(sentence, "the sentence"),
            "pronoun": self._checked(pronoun, "the pronoun").strip(),
            "choices": self._checked_answers(candidates, "candidate"),
        }
        return _comparison(row["choices"], score_referents(self.scorer, Dataset.from_list([row])))

    def choose(self, document: str, question: str, choices: list[str]) -> Comparison:
        """
        Score the answers to a question about a document; the question may be empty. The scores come from the
        fine-tuned model or, without one, from RACE's zero-shot heuristic: the mean log-probability of the answer's
        tokens.

        Raises:
            GPT1Error: if the document or a choice is empty, or the number of choices is not 2 to `MAX_ANSWERS`.
        """
        row = {
            "document": self._checked(document, "the text"),
            "question": question and question.strip() and self._checked(question, "the question"),
            "choices": self._checked_answers(choices, "choice"),
        }
        if self.choice_model is None:
            return _comparison(row["choices"], score_answers(self.scorer, Dataset.from_list([row])))
        processor, model = self.chooser
        inputs = processor(
            [row],
            max_length=min(processor.tokenizer.model_max_length, self.scorer.window),
            padding=True,
            return_tensors="pt",
            return_truncated=True,
        )
        is_cut = inputs.pop("truncated")
        with torch.inference_mode():
            logits = model(**inputs.to(model.device)).logits  # (1, choices)
        return _comparison(row["choices"], Answers(logits.float().log_softmax(-1).tolist(), is_cut))

    def tokenize(self, text: str) -> tuple[str, list[Word]]:
        """
        The steps from a text to token ids.

        Returns:
            `tuple[str, list[Word]]`: the text after clean-up and splitting, and its words.

        Raises:
            GPT1Error: if the text is empty.
        """
        text, tokenizer = self._checked(text, "the text"), self.scorer.tokenizer
        backend = tokenizer.backend_tokenizer
        cleaned = backend.normalizer.normalize_str(text) if backend.normalizer else text
        encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        texts = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(cleaned)] if backend.pre_tokenizer else []
        words: list[Word] = []
        last = None
        for piece, token, word in zip(encoding.tokens(), encoding["input_ids"], encoding.word_ids(), strict=True):
            if word is None or word != last:
                words.append(Word(texts[word] if word is not None and word < len(texts) else piece, [], []))
            last = word
            words[-1].pieces.append(piece)
            words[-1].ids.append(token)
        return re.sub(" +", " ", cleaned).strip(" "), words

    def _checked(self, text: str | None, name: str) -> str:
        """
        The text, with lone surrogates replaced, so that it can be encoded.

        Raises:
            GPT1Error: if it is empty, before or after clean-up, or too long.
        """
        text = (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if not text.strip():
            raise GPT1Error(f"{name} is empty: write something")
        if len(text) > MAX_CHARACTERS:
            raise GPT1Error(f"{name} is {len(text):,} characters long: shorten it to {MAX_CHARACTERS:,}")
        if not self.scorer.encode([text])[0]:
            raise GPT1Error(f"{name} has no character that the tokenizer keeps: write a word")
        return text

    def _checked_answers(self, texts: list[str], name: str) -> list[str]:
        if not 2 <= len(texts) <= MAX_ANSWERS:
            raise GPT1Error(f"give 2 to {MAX_ANSWERS} {name}s, not {len(texts)}")
        return [self._checked(text, f"{name} {index}").strip() for index, text in enumerate(texts, 1)]


def _comparison(answers: list[str], scored: Answers) -> Comparison:
    (scores,), (is_cut,) = scored.scores, scored.cut
    for index, score in enumerate(scores, 1):
        if not math.isfinite(score):
            raise GPT1Error(f"text {index} has no token to score, because its first token has no context: write more")
    return Comparison(answers, scores, is_cut)
