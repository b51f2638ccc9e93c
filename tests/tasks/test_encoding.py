"""What is refused, and that what is kept lines up."""

import numpy as np
import pytest

from jaxcompress import tasks
from jaxcompress.tasks import encoding, tokens


class Table:
    """Words by whitespace; words with "-" fall into pieces, to make counts unequal."""

    def __init__(self, before=(), after=(), **names):
        self.ids, self.before, self.after = {}, list(before), list(after)
        self.__dict__.update(names)

    def __call__(self, text):
        pieces = text.replace("-", " -").split()
        ids = [self.ids.setdefault(piece, 10 + len(self.ids)) for piece in pieces]
        return {"input_ids": [*self.before, *ids, *self.after]}


def _pair(clean="a b c", corrupted="a x c", correct=(" r",), wrong=(" w",), in_prompt=()):
    return tasks.TextPair(clean, corrupted, correct, wrong, in_prompt)


def _refused(pair, tokenizer=None):
    result = encoding.encode_pair(pair, tokens.reader(tokenizer or Table()))
    assert isinstance(result, encoding.RefusalError)
    return str(result)


def test_plain():
    prompts = tasks.encode([_pair()], Table())
    assert prompts.tokens.tolist() == [[10, 11, 12]]
    assert prompts.corrupted.tolist() == [[10, 13, 12]]
    assert prompts.attention_mask.tolist() == [[1, 1, 1]]
    assert prompts.answer_position.tolist() == [2]
    assert (prompts.correct.tolist(), prompts.wrong.tolist()) == ([[14]], [[15]])


def test_special_tokens_after_the_text_are_taken_off():
    table = Table(before=[1], after=[2], bos_token_id=1, eos_token_id=2, all_special_ids=[1, 2])
    prompts = tasks.encode([_pair()], table)
    assert prompts.tokens.tolist() == [[1, 10, 11, 12]]
    assert prompts.answer_position.tolist() == [3]


@pytest.mark.parametrize(
    ("names", "fill"),
    [({"pad_token_id": 7, "eos_token_id": 5}, 7), ({"eos_token_id": 5}, 5), ({}, 0)],
)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(names, fill, side):
    pairs = [_pair(), _pair("a", "b")]
    prompts = tasks.encode(pairs, Table(**names), padding_side=side)
    padded = prompts.attention_mask[1].tolist()
    assert padded == ([1, 0, 0] if side == "right" else [0, 0, 1])
    row, position = prompts.tokens[1].tolist(), int(prompts.answer_position[1])
    assert [token for token, real in zip(row, padded, strict=True) if not real] == [fill, fill]
    assert position == padded.index(1)
    assert prompts.answer_position[0] == 2


def test_answer_sets_are_padded_with_minus_one():
    pairs = [_pair(correct=(" r", " s", " t")), _pair("a b d", "a x d", wrong=(" v", " w"))]
    prompts = tasks.encode(pairs, Table())
    assert (np.asarray(prompts.correct) >= 0).tolist() == [[True] * 3, [True, False, False]]
    assert (np.asarray(prompts.wrong) >= 0).tolist() == [[True, False], [True, True]]
    assert set(np.asarray(prompts.correct)[1, 1:].tolist()) == {-1}


def test_multi_token_alternative_is_left_out_of_a_set():
    prompts = tasks.encode([_pair(correct=(" r", " s-t"))], Table())
    assert prompts.correct.shape == (1, 1)


def test_refusals():
    assert _refused(_pair(correct=(" r-s",))) == "' r-s' is 2 tokens (14 15)"
    assert _refused(_pair(correct=("r",))) == "'r' merges with the text around it"
    assert _refused(_pair(wrong=(" r",))) == "' r' and ' r' share a token"
    assert _refused(_pair(in_prompt=(" w",))) == "' w' is no token of its own inside the prompt"
    assert _refused(_pair(corrupted="a x-y c")) == "clean and corrupted are 3 and 4 tokens long"
    assert _refused(_pair(corrupted="a b c")) == "clean and corrupted are the same tokens"


def test_equal_length_is_not_alignment():
    """Two tokens then one, against one then two: patching would mix up the positions."""
    pair = _pair("a b-b c d e", "a x c y-y e")
    assert _refused(pair) == "'b-b' and 'x' differ in token count"
    assert isinstance(
        encoding.encode_pair(_pair("a b-b c d e", "a x-x c y e"), tokens.reader(Table())),
        encoding.Encoded,
    )


def test_one_changed_run_may_have_other_word_borders():
    result = encoding.encode_pair(_pair("in b-b so", "in x y so"), tokens.reader(Table()))
    assert isinstance(result, encoding.Encoded)


def test_unknown_words():
    class Closed(Table):
        def __call__(self, text):
            ids = super().__call__(text)["input_ids"]
            return {"input_ids": [3 if token > 13 else token for token in ids]}

    table = Closed(unk_token_id=3)
    table("a b c x")
    assert _refused(_pair(), table) == "' r' is not in the vocabulary"
    assert _refused(_pair("a b z"), table) == "words of the prompt are not in the vocabulary"


def test_masked_text_and_position(bert):
    prompts = tasks.encode([_pair("Sun done in", "Moon done in", (" five",), (" four",))], bert)
    assert bert.convert_ids_to_tokens(prompts.tokens[0].tolist()) == [
        *("[CLS]", "sun", "done", "in", "[MASK]", ".", "[SEP]")
    ]
    assert prompts.answer_position.tolist() == [4]
    assert bert.convert_ids_to_tokens([int(prompts.correct[0, 0])]) == ["five"]


def test_mask_must_be_one_token():
    table = Table(mask_token="<m>", mask_token_id=99)
    assert _refused(_pair(), table) == "'<m>' is there 0 times, not once"


def test_nothing_left_says_why():
    with pytest.raises(ValueError, match=r"got 0 of 2\. ' r-s' is 2 tokens \(14 15\) \(2x\)"):
        tasks.encode([_pair(correct=(" r-s",))] * 2, Table())


def test_texts_together_are_texts_one_by_one(tokenizer):
    read = tokens.reader(tokenizer)
    texts = ["The war lasted from", "When John and Mary", "x", "17 18", "the the"]
    assert tokens.all_ids(read, texts) == [tokens.prompt_ids(read, text) for text in texts]
    assert tokens.all_ids(read, []) == []


def test_ordinary_ids():
    table = Table(vocab_size=5, all_special_ids=[1])
    assert tokens.ordinary_ids(table) == [0, 2, 3, 4]
    table.convert_ids_to_tokens = lambda ids: [["a", "b", None, "[unused3]", "e"][i] for i in ids]
    assert tokens.ordinary_ids(table) == [0, 4]
