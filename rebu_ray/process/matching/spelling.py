"""Slips of the finger in the words that matter: "ltest trip", "accounnt", "cancleled"."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from rapidfuzz import process
from rapidfuzz.distance import OSA

_WORD_LIST: Final = (
    "account accident address afternoon amount application arrive arrived available before behind billed "
    "booked booking broken bumped cancel canceled cancelled cancellation charge charged code coupon crash "
    "crashed crashing damage delete deleted destination detour dirty discount dispute dollars driver drivers "
    "driving dropped earlier early ended error euros evening expensive fare finished forgot friday froze "
    "frozen half headphones horrible invoice jacket journey laptop late latest licence location lost monday "
    "money month morning never newest night number overcharged passenger password paid penalty phone pickup "
    "plate please previous price profile promo quoted receipt recent reckless refund refused registration "
    "ride rude saturday screen searching second sign smelled smoking speeding stopped stranded sunday "
    "thursday today tomorrow trip tuesday twice umbrella unsafe vehicle voucher waited waiting walk walked "
    "wallet wednesday week weekend wheel wrong yesterday january february march april june july august "
    "september october november december"
)
_WORDS: Final = tuple(sorted(frozenset(_WORD_LIST.split())))
"""What the other modules look for, in the forms that people write most."""
_OTHER_LIST: Final = (
    "cards charges cored codes lasted latter laser price prices prince rider riders river rivers rides diver "
    "driven drives tripe strip waiter waited wanted wait waits walls weeks weekday nights right light might "
    "eight might later lasts ended needed hated rated dated fares fired hired later plates planet place "
    "phones prone stone alone money honey monkey month months mouth north south worth wheels where there "
    "these those while white write wrote quite quiet could would should other mother another brother bother "
    "either neither whether weather leather early nearly clearly yearly dearly never fever lever clever every "
    "ever codec coded mode model morning mornings mourning warning screens signs sing sigh paris pair pain "
    "said laid raid profit prone account accounts recount discounts amounts mount broke booking cooking "
    "looking walking talking driving giving living diving parked marked market walker talked stopped shopped "
    "dropped tripped hopped topped"
)
_KNOWN: Final = frozenset(_WORDS) | frozenset(_OTHER_LIST.split())
"""What is no slip though it resembles one of those."""
_TOKEN: Final = re.compile(r"[^\W\d_]{5,14}")


def corrected(text: str) -> str:
    """`text` (small letters) with words that are one slip away from a word that matters set right."""
    return _TOKEN.sub(lambda match: _nearest(match.group()), text)


@lru_cache(maxsize=131_072)
def _nearest(word: str) -> str:
    if word in _KNOWN:
        return word
    # A slip swaps, drops, adds or changes one letter; the first is seldom wrong, and an ending is no slip.
    found = process.extract(word, _WORDS, scorer=OSA.distance, score_cutoff=1, limit=3)
    near = [
        right
        for right, _, _ in found
        if right[0] == word[0] and not _inflected(word, right) and (len(word) > 5 or sorted(word) == sorted(right))
    ]
    return near[0] if len(near) == 1 else word


def _inflected(word: str, right: str) -> bool:
    return word.rstrip("sdrnyg") == right.rstrip("sdrnyg") or word.startswith(right) or (
        len(word) == len(right) - 1 and right.startswith(word)
    )  # fmt: skip
