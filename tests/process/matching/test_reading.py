"""Texts, mails and transcripts: what is read out of them, and that nothing makes the reading fail."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rebu_ray.process.matching import mail, transcript
from rebu_ray.process.matching.reading import read
from rebu_ray.process.matching.spelling import corrected
from rebu_ray.process.matching.text import codes, said
from tests.real_data import DATA, needs_data

CHANNELS = ("email", "voice", "chat", None)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("Twenty-two euros fifty", "22 euros 50"),
        ("eleven fifty", "11 50"),
        ("a hundred and twenty three", "123"),
        ("eight oh five", "8 05"),
        ("two thousand twenty six", "2026"),
        ("between seventy and eighty", "between 70 and 80"),
        ("at one", "at 1"),
        ("the one before that", "the one before that"),
        ("a one", "a one"),
        ("hundred hundred hundred", "100 100 100"),
    ],
)
def test_number_words_become_digits(text: str, digits: str) -> None:
    assert said(text) == digits


@given(st.integers(1, 99))
def test_a_number_in_words_is_that_number(number: int) -> None:
    ones = ("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
            "seventeen "
            "eighteen nineteen")  # fmt: skip
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    word = ones.split()[number - 1] if number < 20 else tens.split()[number // 10 - 2]
    if number >= 20 and number % 10:
        word += f"-{ones.split()[number % 10 - 1]}"
    assert said(f"{word} euros") == f"{number} euros"


def test_spelt_codes_are_put_together() -> None:
    assert "rb7k29" in codes(said("it is r b seven k two nine"))
    assert "rabc234xyz" in codes(said("ride R-abc234xyz please"))
    assert codes("i am at a") == set()


def test_slips_in_words_that_matter_are_put_right() -> None:
    assert corrected("my accounnt and my yesterady trip") == "my account and my yesterday trip"
    assert corrected("the prices match the screens") == "the prices match the screens"


def test_a_reply_is_parted_from_what_it_quotes_and_its_signature() -> None:
    text = (
        "It is still wrong.\n\nThanks\nSam\n\n"
        "On Mon, 2 March 2026 at 10:00 Rebu <a@b.example>\nwrote:\n> Ride r-1\n> Bye"
    )
    assert mail.parts(text)[0] == "It is still wrong."
    assert "Ride r-1" in mail.parts(text)[1]
    assert mail.parts(text)[2] == "Thanks\nSam"
    outlook = "Please refund.\n\nFrom: Rebu <a@b.example>\nSent: Monday\nTo: Sam\nSubject: Your ride\n\nTotal 12.50"
    assert mail.parts(outlook)[0] == "Please refund."
    assert "Total 12.50" in mail.parts(outlook)[1]
    answer_below = "On Monday Rebu wrote:\n> Which ride?\nThe one at noon.\n-- \nSam"
    assert mail.parts(answer_below) == ("The one at noon.", "On Monday Rebu wrote:\nWhich ride?", "-- \nSam")


def test_a_mail_of_html_alone_is_read_as_text() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Sam <sam@post.example>", "care@rebu.example", "Grüße"
    message.set_content(
        "<style>p{color:red}</style><p>Too &euro;12.50 dear</p><blockquote><p>Total 9</p></blockquote>", subtype="html"
    )
    letter = mail.read(message.as_string())
    assert letter.subject == "Grüße"
    assert letter.sender == "sam@post.example"
    assert letter.reply == "Too €12.50 dear"
    assert "Total 9" in letter.quoted


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-15", "x-unknown-9", "", "utf-7", "idna", '"'])
def test_any_charset_is_survived(charset: str) -> None:
    raw = f"From: a@b.example\nSubject: =?{charset}?Q?caf=E9?=\nContent-Type: text/plain; charset={charset}\n\nfünf €"
    letter = mail.read(raw)
    assert letter.reply == "fünf €"
    assert letter.subject is not None


def test_encoded_parts_are_decoded_by_their_charset() -> None:
    head = "From: a@b.example\nTo: c@d.example\nMIME-Version: 1.0\nContent-Transfer-Encoding: quoted-printable\n"
    assert mail.read(f"{head}Content-Type: text/plain; charset=iso-8859-1\n\ncaf=E9").reply == "café"
    assert mail.read(f"{head}Content-Type: text/plain; charset=nonsense\n\ncaf=E9").reply == "café"


def test_broken_multipart_gives_what_can_be_read() -> None:
    raw = (
        "From: a@b.example\nSubject: x\nContent-Type: multipart/mixed; boundary=zz\n\n--zz\n\nhello there\n--zz broken"
    )
    assert "hello there" in mail.read(raw).shown


def test_a_text_with_a_colon_is_no_mail() -> None:
    assert not mail.is_mail("Hello: I lost my bag.\n\nThanks")
    assert not mail.is_mail("Subject: only this line")
    assert mail.is_mail("From: a@b.example\nSubject: x\n\nHello")


def test_turns_and_who_the_agent_is() -> None:
    turns = transcript.turns("Agent: hello\nCustomer: uh my my bag\nis gone\nAgent: when was that")
    assert [(turn.agent, turn.text) for turn in turns] == [
        (True, "hello"), (False, "uh my my bag is gone"), (True, "when was that"),
    ]  # fmt: skip
    assert transcript.clean(turns[1].text) == "my bag is gone"
    named = transcript.turns("Mona: rebu support how can i help\nSam: my bag is gone\nMona: okay")
    assert [turn.agent for turn in named] == [True, False, True]
    assert transcript.turns("one note: this is no dialogue") == [
        transcript.Turn(None, False, "one note: this is no dialogue")
    ]


def test_webvtt_is_read_by_its_voices() -> None:
    vtt = (
        "WEBVTT - a call\n\nNOTE nothing\n\n1\n00:00:00.000 --> 00:00:02.000\n<v Agent>hello &amp; welcome</v>\n\n"
        "00:02.500 --> 00:04.000 align:start\n<v.loud Sam Reed>it was <i>eleven</i> fifty\nplease\n"
    )
    turns = transcript.turns(vtt)
    assert [(turn.speaker, turn.agent, turn.text) for turn in turns] == [
        ("Agent", True, "hello & welcome"), ("Sam Reed", False, "it was eleven fifty please"),
    ]  # fmt: skip
    reading = read("voice", None, vtt)
    assert reading.shown == "Agent: hello & welcome\nSam Reed: it was eleven fifty please"


def test_the_agents_words_are_not_the_customers() -> None:
    reading = read("voice", None, "Agent: did you lose something yesterday\nCustomer: no the price was too high")
    assert reading.troubles == ("charge",)
    assert reading.moments == ()


_PIECES = st.sampled_from(
    ["From: ", "Subject: ", "\n\n", "\n", "=?utf-8?B?w4=?=", "Content-Type: multipart/mixed; boundary=x\n", "--x\n",
     "<p", "&#x;",
     "WEBVTT\n\n", "00:00 --> 00:01\n", "<v A>", "Agent: ", "On Monday x wrote:\n", "> ", "€", "12.50",
     "half past ", "0 am",
     "on the 31st of february", "29/2", "99.99.", "last monday", "r-", "a 1 b 2 ", "\x00", "\ud800", "charset=\"\n",
     "one hundred "]
)  # fmt: skip


@given(
    st.lists(_PIECES | st.text(max_size=12), max_size=30), st.sampled_from(CHANNELS), st.none() | st.text(max_size=20)
)
def test_no_text_makes_the_reading_fail(pieces: list[str], channel: str | None, subject: str | None) -> None:
    reading = read(channel, subject, "".join(pieces))
    assert reading.shown is not None
    assert reading == read(channel, subject, "".join(pieces))


def _texts(folder: str) -> Iterator[str]:
    for path in sorted((DATA / folder).iterdir()):
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            yield file.read().decode("utf-8", "replace")


@needs_data
def test_real_mails_give_their_text() -> None:
    letters = [mail.read(raw) for raw in _texts("emails_rfc822")]
    assert len(letters) > 30
    # Some hold nothing but an attachment; all others have words, and no part of one is lost.
    assert sum(1 for letter in letters if letter.shown) >= len(letters) - 5
    assert all(letter.reply or letter.quoted or letter.signature for letter in letters if letter.shown.strip())
    assert any("대부분의" in letter.reply for letter in letters)
    assert sum(1 for letter in letters if letter.quoted) >= 5


@needs_data
def test_recognised_speech_is_read_turn_by_turn() -> None:
    dialogues = [entry for text in _texts("spoken_dialogues_dstc10") for entry in json.loads(text)]
    for dialogue in dialogues:
        body = "\n".join(f"{turn['speaker']}: {turn['text']}" for turn in dialogue if turn["text"].strip())
        turns = transcript.turns(body)
        assert {turn.speaker for turn in turns} <= {"U", "S"}
        assert all(turn.agent == (turn.speaker == "S") for turn in turns if len({t.speaker for t in turns}) > 1)
        assert read("voice", None, body).shown


@needs_data
@pytest.mark.parametrize("channel", CHANNELS)
def test_real_reviews_and_tweets_are_read(channel: str | None) -> None:
    reviews = [row["ride_review"] for text in _texts("uber_ride_reviews") for row in csv.DictReader(text.splitlines())]
    conversations = [one for text in _texts("support_conversations_ibm") for one in json.loads(text)]
    tweets = [turn["message"] for one in conversations[:150] for turn in one["dialogContent"]]
    readings = [read(channel, None, text) for text in reviews[:200] + tweets]
    # Complaints about rides speak of trouble far more often than tweets to companies of all sorts.
    first, second = readings[:200], readings[200:]
    assert sum(bool(r.troubles) for r in first) / len(first) > 1.5 * sum(bool(r.troubles) for r in second) / len(second)
