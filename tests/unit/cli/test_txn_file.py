"""The file of a transaction, in both of its forms."""

from __future__ import annotations

import json

import pytest

from raft_agent.api.protocol import (
    Compare,
    DeleteKey,
    DeletePrefix,
    GetKey,
    ListKeys,
    PutKey,
    Relation,
    Target,
)
from raftctl.txn_file import Transaction, TransactionFileError, parse

WANTED = Transaction(
    compares=[
        Compare(Target.VALUE, "balance", Relation.EQUAL, b"5 euros"),
        Compare(Target.VERSION, "balance", Relation.GREATER, 2),
        Compare(Target.LEASE, "balance", Relation.NOT_EQUAL, 7),
        Compare(Target.CREATE_REVISION, "spent", Relation.EQUAL, 0),
        Compare(Target.CREATE_REVISION, "balance", Relation.NOT_EQUAL, 0),
    ],
    then=[
        PutKey("balance", b"4"),
        PutKey("spent", b"# one", 7),
        DeleteKey("x"),
        DeletePrefix("tmp/"),
    ],
    otherwise=[GetKey("balance"), ListKeys(""), ListKeys("a/", 3)],
)
TEXT = """
# what it is for
compare:
  value balance = "5 euros"
  version balance > 2
  lease balance != 7
  absent spent
  exists balance   # or else

then
  put balance 4
  put spent '# one' --lease 7
  delete x
  delete-prefix tmp/
else
  get balance
  list ""
  list a/ --limit 3
"""
JSON = {
    "compare": [
        {"key": "balance", "value": "5 euros"},
        {"key": "balance", "version": 2, "op": ">"},
        {"key": "balance", "lease": 7, "op": "!="},
        {"key": "spent", "exists": False},
        {"key": "balance", "exists": True},
    ],
    "then": [
        {"put": "balance", "value": "4"},
        {"put": "spent", "value_base64": "IyBvbmU=", "lease": 7},
        {"delete": "x"},
        {"delete_prefix": "tmp/"},
    ],
    "else": [{"get": "balance"}, {"list": ""}, {"list": "a/", "limit": 3}],
}


@pytest.mark.parametrize("data", [TEXT.encode(), json.dumps(JSON).encode()], ids=["text", "json"])
def test_both_forms_say_the_same(data: bytes) -> None:
    assert parse(data) == WANTED


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("put k v", 'line 1: the first line must be "compare" or "then"'),
        ("then\n put k", "line 2: 'put k' is no operation; there are put KEY VALUE"),
        ("then\n\n put k v --lease x", "line 3: 'x' is not a whole number"),
        ("then\n put k 'v", "line 2: No closing quotation"),
        ("compare\n version k ~ 3", "line 2: '~' is no comparison"),
        ("compare\n version k = -3", "line 2: '-3' is not a whole number"),
        ("compare\n age k = 3", "is no compare"),
        ('{"then": [', "it is no JSON"),
        ('{"when": []}', "'when' is no part of a transaction"),
        ('{"then": {}}', "then is no list"),
        ('{"then": [7]}', "then[0]: it is no object"),
        ('{"then": [{"get": "k"}, {"put": "k"}]}', "then[1]: 'value' has to be there"),
        ('{"then": [{"put": 7, "value": ""}]}', "then[0]: 'put' has to be there, and a text"),
        ('{"then": [{"get": "k", "lease": 7}]}', "the field 'lease' does not belong here"),
        ('{"then": [{"nest": []}]}', "then[0]: it is no operation"),
        ('{"then": [{"put": "k", "value_base64": "?"}]}', "is no base64"),
        ('{"compare": [{"key": "k"}]}', "what is compared is missing"),
        ('{"compare": [{"key": "k", "revision": true}]}', "True is not a whole number"),
        ('{"compare": [{"key": "k", "exists": 1}]}', "true or false"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: str, words: str) -> None:
    with pytest.raises(TransactionFileError) as error:
        parse(data.encode())
    assert words in str(error.value)


def test_bytes_that_are_no_text_are_named() -> None:
    with pytest.raises(TransactionFileError, match="byte 5 is no UTF-8"):
        parse(b"then\n\xff")
