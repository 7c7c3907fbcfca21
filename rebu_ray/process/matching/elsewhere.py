"""Words that point away from rides, or to one of them: accounts and offers, "not my last ride", "the first today"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TRIP: Final = r"(?:rides?|trips?|journeys?|bookings?|cars?|cabs?|drives?|one|taxi|fares?)"
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "account": (
        r"\b(?:delete|close|deactivate|cancel|remove|reopen|suspend\w*|block\w*|lock\w*|hack\w*|verif\w+|creat\w+|"
        r"merge) "
        r"(?:\w+ ){0,3}(?:account|profile|data)\b",
        r"\b(?:account|profile)\b(?: \w+){0,4} (?:delet\w+|clos\w+|deactivat\w+|suspend\w*|block\w*|lock\w*|hack\w*|"
        r"remov\w+|"
        r"settings|disabled|banned)\b",
        r"\b(?:change|update|new|correct) (?:\w+ ){0,2}(?:phone number|e-?mail(?: address)?|telephone|surname|last "
        r"name|"
        r"number|home address|payment method|credit card|debit card|bank|language|profile)\b",
        r"\b(?:privacy|gdpr|personal data|unsubscribe|newsletters?|marketing|mailing list)\b",
        r"\b(?:payment method|add (?:my|a|another) (?:card|paypal)|paypal|apple pay|google pay|expired card|card "
        r"(?:expired|details))\b",
    ),
    "password": (
        r"\b(?:password|passcode|verification code|confirmation code|sms code|pin code|two[ -]factor|2fa|log ?in|"
        r"logging in|"
        r"login|sign(?:ing)? in|log on|logged out|sign ?up|register(?:ing)?)\b",
    ),
    "promotion": (
        r"\b(?:promo\w*|voucher|coupon|discount|referral|refer(?:red|ring)? a friend|invit\w+ (?:a |my )?friends?|"
        r"loyalty|points|"
        r"free ride|offer code|code did ?n[o']?t|subscription|pass|membership|bonus|reward\w*|credits?)\b",
    ),
    "gift card": (r"\bgift ?(?:card|voucher|certificate)s?\b",),
    "driving": (
        r"\b(?:become|becoming|be|being|work(?:ing)? as|sign up as|apply|applying|job|register as|start as)\b(?: "
        r"\w+){0,4} driver\b",
        r"\bdr(?:ive|iving) (?:for|with) (?:you|rebu|your)\b", r"\b(?:driver (?:application|requirements|"
                                                               r"onboarding)|hiring|"
        r"vacanc\w+|recruit\w*|earn(?:ings)?)\b",
    ),
    "question": (
        r"\b(?:do you (?:go|drive|serve|operate|offer|have|accept|run|plan|cover|allow|take)|are (?:you|there) "
        r"(?:\w+ ){0,2}"
        r"(?:open|available|planning|any|going|running)|can i (?:book|bring|take|use|pay|pre|reserve|schedule|order|"
        r"add|have|get)|"
        r"is it possible|how (?:do|can|does|would|much (?:would|does|is)|early|far)|what (?:is|are|does|do|would)|"
        r"will you|when will|would it cost|could you (?:tell|explain)|i would like to know|wondering (?:if|whether)|"
        r"in advance|next (?:week|month|monday|tuesday|wednesday|thursday|friday|saturday|sunday|year)|tomorrow|"
        r"business account|corporate|partnership|press|interview|journalist)\b",
    ),
    "somebody else": (
        r"\b(?:my|our) (?:wife|husband|son|daughter|mother|father|mum|mom|dad|friend|colleague|boss|neighbou?r|"
        r"brother|sister|"
        r"partner|girlfriend|boyfriend|aunt|uncle|grand\w+|flatmate|roommate)(?:'s)?\b(?: \w+){0,6} "
        r"(?:account|app|phone|ride|trip|took|ordered|booked|was|had|got|left|lost|rode)\b",
        r"\b(?:i was(?: not|n'?t) (?:in|a passenger|riding|on board)|not a customer|don'?t (?:even )?(?:have|use) "
        r"(?:an account|"
        r"the app|rebu|your)|your driver (?:blocked|parked|cut|nearly hit|almost hit|hit my))\b",
        r"\b(?:block\w* (?:my|our|the) (?:drive\w*|garage|entrance)|parked (?:in|on|across|outside) (?:my|the|our))\b",
    ),
    "denied": (
        rf"\b(?:not|n'?t|nothing|no|isn'?t) (?:really |actually |to do )?(?:about|regarding|concerning|with|related "
        rf"to|connected to) "
        rf"(?:an?|any|the|my|one of my|a particular|any particular|a specific|any specific|some|this|that) ?(?:\w+ "
        rf")?{_TRIP}\b",
        rf"\bno (?:particular|specific|single) {_TRIP}\b", r"\b(?:general|unrelated) (?:question|enquiry|inquiry|"
                                                           r"feedback|matter|remark)\b",
        rf"\bhave ?n[o']?t (?:taken|used|had|ordered) (?:\w+ ){{0,3}}{_TRIP}(?: yet| so far| lately| in| since|$)",
    ),
    "marketing": (
        r"(?:\b\d{1,2} ?% off\b|\boff (?:every|your next|all)\b|\b(?:our|new|updated) (?:terms|policy|policies)\b|"
        r"\bterms (?:of (?:service|use)|and "
        r"conditions)\b|"
        r"\b(?:survey|newsletter|unsubscribe|privacy policy|happy holidays|introducing|now available|this weekend only|"
        r"tell your friends|we(?:'ve| have) updated)\b)",
    ),
}  # fmt: skip
KINDS: Final = tuple(_KINDS)
_PATTERNS: Final = {kind: re.compile("|".join(parts)) for kind, parts in _KINDS.items()}

_LATEST: Final = r"(?:last|latest|most recent|newest|recent|just now|previous|current)"
_NOT_LAST: Final = re.compile(
    rf"\b(?:not|n'?t|rather than|instead of|other than|isn'?t|wasn'?t) (?:\w+ ){{0,3}}(?:my |the |this |that |"
    rf"today'?s )?"
    rf"(?:very )?{_LATEST} {_TRIP}\b|\bnot (?:the|my) (?:last|latest|most recent)\b|\bnot (?:the one (?:i )?(?:just|"
    rf"from today|today)|"
    rf"today'?s|this one|the one after)\b|\b(?:an|one) (?:earlier|older|previous) {_TRIP}\b|\bearlier {_TRIP}\b|"
    rf"\bi(?:'ve| have) (?:\w+ )?(?:ridden|taken|had|used|been)(?: \w+){{0,5}} since\b"
)
_BEFORE_LAST: Final = re.compile(
    rf"\b(?:the )?(?:{_TRIP}|trip|one) before (?:that|last|this|the last|my last|it|the latest)\b|\b(?:second|"
    rf"next)[ -](?:to[ -])?last\b|"
    rf"\bpenultimate\b|\blast but one\b|\b2 {_TRIP} (?:ago|back)\b|\b{_TRIP} before the (?:most recent|latest|"
    rf"last)\b|\bprevious to that\b"
)
_LAST: Final = re.compile(
    rf"\b(?:my|the|our|this) (?:very )?(?:last|latest|most recent|newest|current) {_TRIP}\b|\bmost recent {_TRIP}\b|"
    rf"\bi(?:'ve| have)? (?:just|only just) (?:now )?(?:got|had|took|taken|finished|been|left|rode|ridden|came|"
    rf"arrived|ended|"
    rf"stepped|ordered|booked|tried)\b|\b{_TRIP} (?:i|we)(?:'ve| have)? just (?:had|took|taken|finished|did|made|"
    rf"ended)\b|"
    rf"\bjust (?:got|stepped|climbed) out\b|\b(?:i'?m|we'?re|i am|we are) (?:still |currently |now )?(?:in|inside|"
    rf"sitting in) "
    rf"(?:the|a|this|my) (?:car|cab|taxi|back)\b|\bstill in the (?:car|cab)\b"
)
_NTH_OF_DAY: Final = re.compile(
    rf"\b(?:my |the |our )?(first|1st|second|2nd|third|3rd|2) {_TRIP} (?:of )?(?:the day|today|this morning|yesterday|"
    rf"of that day)|\b(?:today|yesterday|that day|this morning)'?s? (first|second|third) {_TRIP}\b"
)
_RIDE_WORDS: Final = re.compile(
    r"\b(?:my|the|this|that|our|a|last|his|her) (?:\w+ ){0,2}(?:ride|trip|journey|driver|drive|car|cab|taxi|fare|"
    r"pick ?up|drop[ -]?off|"
    r"destination|passenger seat|back ?seat|route)\b|\b(?:picked (?:me|us) up|dropped (?:me|us)|drove (?:me|us)|"
    r"took (?:me|us)|"
    r"drop(?:ped)? off)\b"
)
_YES: Final = re.compile(r"^\W*(?:yes|yeah|yep|yup|correct|right|exactly|that one|that's (?:it|right)|sure|indeed)\b")
_NO: Final = re.compile(r"^\W*(?:no|nope|nah|not that|actually no|it's not|it is not|wrong)\b")
_ASKS_LAST: Final = re.compile(rf"\b(?:last|latest|most recent) {_TRIP}\b")
_ORDER: Final = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "2": 2, "third": 3, "3rd": 3}


@dataclass(frozen=True, slots=True)
class Pointers:
    """Where a text points: kinds of elsewhere, and which of the rides in order (None: unsaid)."""

    kinds: tuple[str, ...]
    last: bool
    not_last: bool
    before_last: bool
    nth: tuple[int, int] | None
    """(which, days ago): the second ride of yesterday is (2, 1)."""
    ride_words: bool


def pointers(text: str, answers: tuple[tuple[str, str], ...] = ()) -> Pointers:
    """Where `text` (through `text.said`) points; `answers` are (what the agent asked, how the customer answers)."""
    found = tuple(kind for kind, pattern in _PATTERNS.items() if pattern.search(text))
    before = _BEFORE_LAST.search(text) is not None
    denied = _NOT_LAST.search(text) is not None
    last = not before and not denied and _LAST.search(text) is not None
    for question, answer in answers:
        if _ASKS_LAST.search(question):
            denied = denied or _NO.match(answer) is not None
            last = last or (not denied and not before and _YES.match(answer) is not None)
    nth = _NTH_OF_DAY.search(text)
    order = (_ORDER[nth[1] or nth[2]], 1 if "yesterday" in nth.group() else 0) if nth else None
    return Pointers(found, last, denied, before, order, _RIDE_WORDS.search(text) is not None)
