"""What kind of trouble a text speaks of, and whether a ride shows that trouble."""

from __future__ import annotations

import re
from typing import Final

_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "ended early": (
        r"\b(?:dropp?(?:ed|ing)?|let|left|kick(?:ed)?|threw|thrown|put|dump(?:ed)?|set)\b(?: \w+){0,3} "
        r"\b(?:off|out|down)\b(?: \w+){0,5} (?:early|short|before|far|away|wrong|middle|nowhere|blocks?|half ?way|side|"
        r"instead|roadside|highway|streets?|km|miles?|metres|meters|early)",
        r"\bwrong (?:address|place|destination|location|spot|street|stop|end|side|drop|house|entrance|building)\b",
        r"\b(?:ended|ends|end|finish(?:ed)?|stopp?(?:ed)?|terminated|complet\w+|clos\w+)\b(?: \w+){0,4} "
        r"(?:early|too soon|prematurely|before (?:we|i|my|the|reaching|arriv\w+|getting)|half ?way|mid ?way|short of|"
        r"without (?:reaching|arriving|getting))",
        r"\b(?:never|did ?n[o']?t|not|without) (?:\w+ )?(?:reach\w*(?! (?:me|us|him|her|you|my (?:phone|inbox|mail|"
        r"account)))\b|arriv\w+|get(?:ting)? (?:there|to my|home)|made? it to|"
        r"br(?:ing|ought) (?:me|us) to|take (?:me|us) to)\b",
        r"\bwalk(?:ed|ing)? (?:\w+ ){0,4}(?:rest|remaining|home|way|kilomet\w+|km|miles?|blocks?|minutes?|distance)\b",
        r"\b(?:get|got|step|getting) out (?:\w+ ){0,3}(?:early|here|half|middle|before|of the car)",
        r"\b(?:half ?way|mid ?way|part ?way)\b", r"\bshort of (?:my|the|our)\b", r"\bmiles? (?:from|away)\b",
        r"\b(?:stranded|marooned)\b", r"\bcut (?:\w+ ){0,2}short\b", r"\bthe rest of the (?:way|trip|journey|"
                                                                     r"distance)\b",
    ),
    "app": (
        r"\b(?:app|screen|phone|map|gps|tracking|application|software|system)\b(?: \w+){0,5} (?:crash\w*|"
        r"fr[eo]ez?\w*|froze|"
        r"frozen|hung|hangs?|stuck|blank|black|white|error\w*|bug\w*|glitch\w*|clos(?:ed|ing)|broken?|broke|fail\w*|dead|"
        r"stopp?\w*|load\w*|spinning|shut|logged me|not work\w*|not respond\w*|down)\b",
        r"\b(?:crash(?:ed|es|ing)|froze|frozen|glitch\w*|bugs?|buggy|unresponsive|something went wrong|errors?|"
        r"(?:server|connection|network|technical) (?:problem|issue|fault)s?|time(?:d)? ?out|[45]\d\d (?:error|thing|"
        r"page|code|message)|"
        r"(?:it|app|thing|everything|screen) (?:just |simply |completely )?(?:hung|hangs|locked up|shut itself|"
        r"closed itself|quit)|"
        r"spinning|(?:did ?n[o']?t|would ?n[o']?t|not) (?:react|respond|load|refresh|update)\w*)\b",
        r"\b(?:nothing|button|no button)\b(?: \w+){0,3} (?:worked|pressed|happened|tapped|reacted|did anything)\b",
        r"\b(?:could ?n[o']?t|can ?n[o']?t|unable to|not) (?:see|track|follow) (?:\w+ ){0,3}(?:car|driver|map|ride|"
        r"trip)\b",
    ),
    "cancelled": (
        r"\bcancell?(?:ed|ation|ing|s)?\b(?! (?:my|the|an?|this)? ?(?:account|subscription|membership|card))",
        r"\bno[ -]?show\b", r"\bnever (?:showed|came|turned|arrived|picked|appeared)\b",
        r"\b(?:did ?n[o']?t|not) (?:show|turn) up\b", r"\b(?:no ?(?:body|one)|driver) (?:\w+ )?(?:never )?(?:showed|"
                                                      r"came|turned) ?(?:up)?\b",
        r"\bstood (?:me|us) up\b", r"\b(?:drove|driving) (?:off|away|past)\b(?: \w+){0,3} (?:without|me|us)",
        r"\bleft without (?:me|us)\b",
    ),
    "no car": (
        r"\bno (?:cars?|drivers?|one|vehicles?|cabs?)(?: \w+){0,2} (?:available|found|near\w*|accept\w*|free|around|"
        r"came)\b",
        r"\b(?:could ?n[o']?t|can ?n[o']?t|unable to|failed to|not able to) (?:get|find|book|order|request|hail) "
        r"(?:me |us )?(?:an?|any|the|my)? ?(?:car|ride|driver|cab|taxi|one|trip|vehicle)\b",
        r"\b(?:search(?:ed|ing)?|look(?:ed|ing)) for (?:an?|my|the|available|some\w+)? ?(?:car|driver|ride|cab|body|"
        r"one)\w*",
        r"\b(?:tried|try|trying|attempt\w*|wanted) to (?:get|find|book|order|request|hail|call) (?:me |us )?(?:an?|"
        r"any|the|my|some) ?"
        r"(?:car|ride|driver|cab|taxi|trip|vehicle)\b",
        r"\b(?:could ?n[o']?t|can ?n[o']?t|unable to|failed to|not able to|impossible to) (?:order|book|request|"
        r"get) (?:anything|anyone|anybody)\b",
        r"\b(?:no|zero|not one|not a single|without|none of the|0|hardly any) (?:\w+ )?(?:cars?|drivers?|vehicles?|"
        r"cabs?|match)\b",
        r"\b(?:gave|giv\w+) up (?:on me|on us|looking|searching)\b", r"\bnobody (?:for (?:me|us)|accepted|available|"
                                                                     r"free)\b",
        r"\b(?:booking|request|order)(?: \w+){0,3} (?:fail\w*|rejected|timed out|did ?n[o']?t go|would ?n[o']?t)\b",
    ),
    "fee": (
        r"\b(?:cancell?ation|no[ -]?show) (?:fee|charge|cost|penalty|fine)s?\b",
        r"\b(?:fee|charged?|fine|penalty|paid|pay|bill(?:ed)?|money)\b(?: \w+){0,7} (?:cancell?\w*|never (?:took|"
        r"got|had|happened)|"
        r"did ?n[o']?t (?:take|happen|ride|go|get in)|not taken|no[ -]?show)\b",
        r"\bcancell?\w*\b(?: \w+){0,7} (?:fee|charged?|fine|penalty|billed)\b",
    ),
    "charge": (
        r"\b(?:over-?charged?|over-?priced?|double[ -]charg\w+|charged (?:\w+ )?twice|billed twice|rip[ -]?off|"
        r"ripped off|"
        r"scam\w*|surcharge|too (?:much|expensive|high)|extortion\w*|outrageous)\b",
        r"\b(?:wrong|incorrect|high\w*|different|more|double|twice|huge|crazy|excessive|extra|unfair|inflated)\b(?: "
        r"\w+){0,4} "
        r"(?:fare|price|amount|charge|cost|bill|total|sum|money|than)\b",
        r"\b(?:fare|price|amount|charge|cost|bill|total|sum|estimate|quote)\b(?: \w+){0,5} (?:wrong|incorrect|high\w*|"
        r"different|more|double\w*|twice|excessive|unfair|mismatch|not match\w*|not what|above|jumped|steep|off)\b",
        r"\b(?:charged?|billed|paid|cost|took|debited|deducted|invoiced)\b(?: \w+){0,2} \d",
        r"\b(?:refund|money back|reimburse\w*|dispute|chargeback)\b", r"\bcharged (?:me|us|my card)\b",
        r"\b(?:quoted|estimated?|promised|shown)\b(?: \w+){0,4} \d",
        r"\b(?:detour|long(?:er|est)? (?:way|route)|round ?about (?:way|route)|scenic route|wrong (?:way|turn|"
        r"route))\b",
    ),
    "lost item": (
        r"\b(?:left|forgot|forgotten|lost|leave|lose|mislaid|misplaced|dropped|missing|return|retrieve)\b(?: \w+){0,2} "
        r"(?:my|her|his|our|an?|the|some|their) (?:\w+ ){0,3}(?:wallet|purse|bag|backpack|rucksack|umbrella|phone|"
        r"laptop|jacket|coat|keys?|glasses|sunglasses|scarf|hat|gloves?|suitcase|headphones|earbuds|airpods|book|charger|"
        r"passport|ticket|card|watch|toy|shoes?|tablet|camera|parcel|package|shopping|handbag|briefcase|case|sweater|"
        r"cardigan|ring|earrings?|notebook|bottle|item|things?|belongings|stuff|lunch|guitar|violin|racket|medicine|cap)\b",
        r"\b(?:lost (?:property|item|and found)|left (?:something|it|behind)|lost something|hand(?:ed)? in)\b",
        r"\b(?:wallet|purse|bag|backpack|umbrella|laptop|jacket|coat|keys|glasses|scarf|hat|gloves|suitcase|headphones|"
        r"earbuds|phone|rucksack)\b(?: \w+){0,5} (?:back seat|on the seat|in the (?:car|cab|trunk|boot|back|taxi)|"
        r"under the seat|in his|in her)\b",
    ),
    "driver": (
        r"\b(?:rude|impolite|aggressive|unsafe|reckless\w*|dangerous\w*|speeding|speeded|sped|swearing|swore|shout\w*|"
        r"yell\w*|insult\w*|harass\w*|racist|sexist|inappropriate|creepy|threaten\w*|smok(?:ed|ing)|smell\w*|smelly|stank|"
        r"dirty|filthy|drunk|texting|tailgat\w*|unprofessional|unfriendly|careless\w*|scary|frighten\w*|scared|uncomfortable|"
        r"red light|hands? off the wheel)\b",
        r"\b(?:dr[io]ves?|driving|drove)\b(?: \w+){0,3} (?:fast|bad\w*|terrib\w*|awful\w*|like a|danger\w*|maniac|"
        r"horribl\w*|"
        r"wild\w*|erratic\w*)\b",
        r"\b(?:on|using|looking at|with) (?:his|her|the|their) (?:phone|mobile|cell)\b(?: \w+){0,3} (?:while|when|"
        r"all|the whole|driving)?",
        r"\bdriver'?s? (?:behaviou?r|attitude|conduct|manners)\b", r"\bno seat ?belts?\b", r"\bseat ?belt\b",
    ),
    "waiting": (
        r"\bwait(?:ed|ing)? (?:\w+ ){0,4}(?:\d+|ages|forever|long|hour|half|eternity|minutes|so long|in the (?:rain|"
        r"cold))\b",
        r"\b(?:kept (?:me|us) waiting|long wait|wait time|waiting time|late pick ?up|pick(?:ed)? ?up late|late to "
        r"pick)\b",
        r"\b(?:driver|car|cab|taxi|he|she|it|pick ?up) (?:\w+ ){0,3}(?:late|delayed|took (?:forever|ages|\d+))\b",
        r"\b\d+ (?:minutes?|mins?) late\b", r"\blate for (?:my|work|the|an?)\b",
    ),
    "accident": (
        r"\b(?:accident|collision|collided|crashed (?:in)?to|hit (?:a|an|another|the) (?:car|van|truck|bike|cyclist|"
        r"wall|"
        r"pole|kerb|curb|tree|bus|pedestrian|dog|deer)|rear[ -]ended|injur\w+|hurt|whiplash|ambulance|airbag|fender|"
        r"bump(?:ed)?|scrap(?:ed|e)|police report|broke(?:n)? down|ty?ire|tyre|puncture|breakdown|(?:sudden|hard|"
        r"sharp) brak\w+|"
        r"(?:hit|hurt|bang\w*|injur\w*) my (?:head|neck|back|arm|knee|shoulder)|my (?:head|neck|back|arm|knee|"
        r"shoulder) (?:\w+ )?hurts?)\b",
    ),
    "praise": (
        r"\b(?:great|excellent|wonderful|fantastic|lovely|brilliant|amazing|pleasant|friendl\w+|kind|polite|helpful|best|"
        r"courteous|perfect|superb|outstanding|smooth|safe|nice|delightful|charming)\b(?: \w+){0,2} (?:driver|ride|"
        r"trip|journey|"
        r"service|experience|man|woman|lady|guy|gentleman|driving|chat|fellow|drive)\b",
        r"\b(?:compliment|commend|praise|kudos|shout ?out|tip|pass (?:on|along)|five stars?|5 stars?)\b",
        r"\bdriver (?:was|is) (?:\w+ ){0,2}(?:great|excellent|wonderful|lovely|kind|polite|helpful|friendly|amazing|"
        r"nice)\b",
    ),
    "receipt": (
        r"\b(?:receipts?|invoice|vat|expense (?:report|claim)|expenses?|tax (?:purposes|number|id)|proof of payment)\b",
    ),
}  # fmt: skip
KINDS: Final = tuple(_KINDS)
_PATTERNS: Final = {kind: re.compile("|".join(parts)) for kind, parts in _KINDS.items()}
_SUPPORT: Final[dict[str, frozenset[str]]] = {
    "ended early": frozenset(("premature",)),
    "app": frozenset(("errors",)),
    "cancelled": frozenset(("cancelled",)),
    "no car": frozenset(("failed", "unaccepted")),
    "fee": frozenset(("cancelled fee",)),
    "charge": frozenset(("fare",)),
    "lost item": frozenset(("carried",)),
    "driver": frozenset(("carried",)),
    "waiting": frozenset(("long wait",)),
    "accident": frozenset(("premature",)),
    "praise": frozenset(("completed",)),
    "receipt": frozenset(("fare",)),
}
_AGAINST: Final[dict[str, frozenset[str]]] = {
    "ended early": frozenset(("arrived", "not carried")),
    "app": frozenset(("no errors",)),
    "cancelled": frozenset(("completed",)),
    "no car": frozenset(("carried",)),
    "fee": frozenset(("completed", "no fare")),
    "charge": frozenset(("no fare",)),
    "lost item": frozenset(("not carried",)),
    "driver": frozenset(("unaccepted",)),
    "waiting": frozenset(("short wait",)),
    "accident": frozenset(("not carried",)),
    "praise": frozenset(("not completed",)),
    "receipt": frozenset(("no fare",)),
}
_LONG_WAIT_S: Final = 600.0
_SHORT_WAIT_S: Final = 300.0
_MINUTES_WAITED: Final = re.compile(
    r"\bwait\w*(?: \w+){0,4}? (\d{1,3}) ?min|\b(\d{1,3}) ?(?:minutes?|mins?) (?:\w+ ){0,3}(?:wait\w*|late)\b"
)


def kinds(text: str) -> tuple[str, ...]:
    """The kinds of trouble in a text that went through `text.said`, in the order of `KINDS`."""
    found = [kind for kind, pattern in _PATTERNS.items() if pattern.search(text)]
    if "fee" in found:  # a fee for a cancelled ride: neither word says more by itself
        found = [kind for kind in found if kind not in ("cancelled", "charge")]
    return tuple(found)


def minutes_waited(text: str) -> int | None:
    """How long somebody says to have waited, in minutes."""
    match = _MINUTES_WAITED.search(text)
    return int(match[1] or match[2]) if match else None


def evidence(
    status: str | None, premature: bool, destination_matched: bool | None, errors: int, accepted: bool,
    picked_up: bool, ended: bool, fare_cents: int | None, wait_s: float | None, span_s: float | None,
) -> frozenset[str]:  # fmt: skip
    """What a ride shows, in the words of the tables above. `span_s`: from request to end, None while it runs."""
    shows: set[str] = {"premature"} if premature else set()
    shows.add("errors" if errors else "no errors")
    completed = status == "completed"
    shows.add("completed" if completed else "not completed")
    if completed and destination_matched:
        shows.add("arrived")
    if status in ("cancelled_by_driver", "cancelled_by_rider", "failed"):
        shows.add("failed" if status == "failed" else "cancelled")
    shows.add("carried" if picked_up else "not carried")
    if not accepted and not picked_up:
        shows.add("unaccepted")
    has_fare = fare_cents is not None and fare_cents > 0
    if has_fare and not picked_up:
        shows.add("cancelled fee")
    if has_fare or not ended:
        shows.add("fare")
    else:
        shows.add("no fare")
    waited = wait_s if wait_s is not None else span_s
    if waited is not None and waited >= _LONG_WAIT_S:
        shows.add("long wait")
    elif waited is not None and waited < _SHORT_WAIT_S:
        shows.add("short wait")
    return frozenset(shows)


def fits(kind: str, shows: frozenset[str]) -> bool | None:
    """Whether a ride that `shows` these things had that kind of trouble; None where nothing speaks to it."""
    if _SUPPORT[kind] & shows:
        return True
    return False if _AGAINST[kind] & shows else None
