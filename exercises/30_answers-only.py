"""The targets of a conversation that count: what the assistant says."""

from nanogpt.text.batches import IntArray


def answers_only(ids: IntArray, targets: IntArray, assistant: int, end: int) -> IntArray:
    """The targets that the assistant says, the end of each answer included.

    A row holds conversations, or a window cut from them: <|user|> 3 8 1 5 ? <|end|>
    <|assistant|> 8 <|end|>. Every message begins with the token of its role and ends with the
    same token, `end`. An answer begins after the token `assistant`. Its tokens are to be
    predicted, and its `end`, too. Whatever else is in the row is only read: questions, the
    tokens of roles, the ends of other messages, and what stands between documents.

    Args:
        ids: the tokens, whole numbers (B, T), a numpy array. It stays as it is. A window may
            begin and end anywhere. As long as a row has not shown the token `assistant`,
            nobody knows who speaks, and nothing counts.
        targets: the token after each of them, (B, T), some of them -100 already. They stay as
            they are.
        assistant: the id of the token that begins an answer.
        end: the id of the token that ends a message.

    Returns an array (B, T): the target where it counts, and -100 everywhere else.

    Here <|user|> is 7, <|assistant|> is 8, and <|end|> is 9:

    >>> ids, targets = np.array([[7, 1, 2, 9, 8, 3, 4]]), np.array([[1, 2, 9, 8, 3, 4, 9]])
    >>> answers_only(ids, targets, assistant=8, end=9).tolist()
    [[-100, -100, -100, -100, 3, 4, 9]]
    """
    raise NotImplementedError("your turn")
