"""The words of the invented customers in `matching_truth.py`. The matcher has never seen them as sentences.

In every list each third entry (the third, the sixth, …) is held out: parameters are estimated without it, and the
benchmark reports on texts made of held-out entries alone.
"""

from __future__ import annotations

from typing import Final

TROUBLES: Final[dict[str, tuple[str, ...]]] = {
    "premature": (
        "The man just pulled over and said this was as far as he goes.",
        "I ended up six streets short of where I wanted to be.",
        "He made us get out at the ring road and it was raining.",
        "My drop-off was nowhere close to the address I typed in.",
        "The trip got closed while I was still sitting in the back seat.",
        "We did not even make half the distance and then it was over.",
        "She let me out at the wrong end of town and I had to hike home with two bags.",
        "Your driver terminated it before we were there.",
        "I was put out on the pavement miles from my flat.",
        "Instead of my office I found myself at some petrol station.",
        "It says arrived. I have not arrived anywhere.",
        "The journey stopped early and I paid for a second taxi to get to the door.",
        "I never made it to the place I booked.",
        "Had to go the last two kilometres on foot.",
        "He refused to take the last turn, so I walked from the bridge.",
    ),
    "app": (
        "Your app kept crashing while I was in the vehicle.",
        "All I got was a spinning wheel and a message that something failed.",
        "The screen turned white halfway and stayed like that.",
        "I kept seeing an error and could not change the drop-off.",
        "The map froze and I had no clue where we were.",
        "It threw me out to the start page again and again during the drive.",
        "Nothing I pressed did anything, the whole thing hung.",
        "There was some 500 thing on the display when I tried to add a stop.",
        "The button to pay just gave me a red box.",
        "Live location was gone and the app shut itself down three times.",
        "Your software is full of bugs, it did not load the driver's details.",
        "My phone said server problem, please retry, over and over.",
    ),
    "cancelled": (
        "I stood on the corner like a fool, the car came within sight and then it was called off.",
        "He cancelled on me with one minute to go.",
        "My pickup simply disappeared and I was late for the dentist.",
        "The guy drove right past me and then dropped the booking.",
        "Nobody came to get me.",
        "After ten minutes of watching the dot the driver bailed out.",
        "I was stood up by your driver, again.",
        "The car never turned up and I had a flight to catch.",
        "Somebody accepted and then thought better of it.",
        "The driver rang, asked where I was heading and cancelled at once.",
        "I saw him turn around and off he went without me.",
        "It was cancelled, and certainly not because I wanted that.",
    ),
    "fee": (
        "Why is there a cancellation charge when it was you who messed up?",
        "You took a fee for a ride I called off after thirty seconds.",
        "I see a penalty on my card for something that never took place.",
        "I cancelled because the car stood still, and now I am fined for it.",
        "Please take back the no-show fee, I was standing right there.",
        "I should not pay for a car I never sat in.",
        "The money for the cancelled one has to come back.",
        "There is a charge although I gave up before anybody set off.",
        "I am disputing the cancel cost.",
    ),
    "failed": (
        "I tried to get a car for a quarter of an hour and it just would not work.",
        "Zero vehicles around, supposedly, on a normal weekday.",
        "It kept looking for somebody and finally gave up on me.",
        "The booking never went through.",
        "My request bounced every time I hit the button.",
        "There was not one driver to be found.",
        "I could not order anything, I only got an apology on the screen.",
        "No match, no car, nothing.",
        "In the end I took the bus since you had nobody for me.",
    ),
    "wait": (
        "I stood in the cold for ages before he appeared.",
        "It said four minutes and it took {waited}.",
        "The pickup was {waited} minutes late.",
        "I was waiting about {waited} minutes for that car.",
        "Because the car took so long I missed my train.",
        "He circled the block forever while I was outside.",
        "She turned up very late and did not even apologise.",
        "The arrival time kept jumping up.",
        "Is it normal to hang around for {waited} minutes?",
    ),
    "charge": (
        "That bill cannot be right.",
        "You have taken far more than what was announced.",
        "I want to contest the sum on my statement.",
        "It is usually half as dear.",
        "He took the long way round so that the meter ran.",
        "I was billed two times for the same thing.",
        "The final price does not match the one before I tapped yes.",
        "I expect some of that money to be returned.",
        "Somehow the cost went up while we sat in traffic.",
        "This is daylight robbery for such a short hop.",
        "There is an extra on there that nobody explained.",
        "My card was debited a crazy amount.",
    ),
    "lost": (
        "I must have left my {thing} on the rear seat.",
        "My {thing} is gone and I had it when I got in.",
        "Has anyone turned in a {thing}?",
        "I walked off without my {thing}, it should still be in the boot.",
        "Could you ask whether he has found a {thing}?",
        "My {thing} slid under the passenger seat I believe.",
        "I forgot a {thing} in the vehicle.",
        "I can't find my {thing} since then, please ring the driver.",
        "There is a {thing} of mine travelling around your city now.",
    ),
    "behaviour": (
        "The way he drove scared the kids.",
        "She was shouting at cyclists the entire time.",
        "He had a video running on the dashboard.",
        "I felt really uneasy with that person.",
        "The inside stank of cigarettes.",
        "He went through two red lights.",
        "The driver made comments about my clothes that I did not appreciate.",
        "Very unpleasant man, slammed the door on my bag.",
        "He was texting with one hand on the steering wheel.",
        "The belts in the back did not work.",
        "She played music so loud my ears hurt and would not turn it down.",
        "Not once did he look at the road.",
    ),
    "accident": (
        "We touched another car at the roundabout and I hit my head.",
        "There was a bump from behind while we waited at the lights.",
        "A tyre blew and that was the end of it.",
        "He scraped a parked van and did not stop.",
        "My neck has hurt since that sudden braking.",
        "We slid into a bollard.",
    ),
    "praise": (
        "What a gem of a driver, please let them know.",
        "I have rarely been driven so well.",
        "That was a delight from door to door.",
        "Give the chap a bonus, he helped my grandmother up the stairs.",
        "Super smooth and on the dot, thanks.",
        "Lovely chat and a spotless car.",
    ),
    "receipt": (
        "I need the paperwork for my expenses.",
        "Where do I find the bill as a PDF?",
        "Accounting asks for an invoice with our VAT number.",
        "No receipt ever reached my inbox.",
        "Please resend the slip for that one.",
        "Can the receipt be made out to my firm?",
    ),
}  # fmt: skip
THINGS: Final = ("wallet", "grey hoodie", "umbrella", "laptop sleeve", "set of keys", "kid's lunchbox",
                 "black backpack",
                 "pair of headphones", "violin case", "water bottle", "scarf", "reading glasses")  # fmt: skip

WHEN: Final = (
    "It happened {when}.", "This concerns {when}.", "I am talking about {when}.", "I rode with you {when}.",
    "{when} it was.", "That was {when}.", "The one {when} I mean.", "I got picked up {when}.", "We set off {when}.",
    "Booked it {when}.", "So {when} I was in one of your cars.", "Date and time: {when}.",
)  # fmt: skip
DAYS_TODAY: Final = (
    "today",
    "earlier today",
    "this {part}",
    "this very {part}",
    "today in the {part}",
    "a few hours ago",
)
DAYS_YESTERDAY: Final = ("yesterday", "yesterday {part}", "the {part} of yesterday", "yday", "yesterday in the {part}",
                         "yesterday, in the {part}")  # fmt: skip
DAYS_WEEK: Final = ("on {weekday}", "last {weekday}", "{weekday} {part}", "{ago} days ago", "this past {weekday}",
                    "on {weekday}, in the {part}", "the {part} of {weekday}", "back on {weekday}",
                    "{weekday}")  # fmt: skip
DAYS_DATE: Final = ("on {month} {nth}", "on the {nth} of {month}", "on the {nth}", "on {day}/{month_number}",
                    "{day} {month}", "the {nth} of {mon}", "on {day} {month} in the {part}", "{month} the {nth}",
                    "{mon} {day}")  # fmt: skip
DAYS_FAR: Final = (
    "last week",
    "about {ago} days back",
    "a week or so ago",
    "some days ago",
    "the other day",
    "a while back",
)
CLOCKS: Final = (
    "at {h24}:{mm}", "around {h12} {half}", "at about {h12}:{mm}", "some time after {h12}", "at {h12}.{mm} {half}",
    "{fraction}", "at {fraction}", "{h12}:{mm}{half}", "roughly {h24}:{mm}", "about {fraction}", "@ {h24}:{mm}",
    "near {h12} {half}",
)  # fmt: skip

AMOUNTS: Final = (
    "You deducted {amount}.", "I paid {amount}.", "{amount} left my account.", "The card shows {amount}.",
    "It came to {amount}.", "{amount} for that!", "The receipt reads {amount}.", "I was debited {amount}.",
    "Total {amount}.", "My bank lists {amount}.", "They wanted {amount} from me.", "All in all {amount}.",
)  # fmt: skip
AMOUNT_FORMS: Final = ("€{units}.{cents}", "{units},{cents} €", "{units}.{cents}", "{units} euros {cents}",
                       "EUR {units}.{cents}",
                       "{units}.{cents} euros", "{units} euros and {cents} cents", "{units}.{cents} eur",
                       "{units}€{cents}")  # fmt: skip
ROUND_FORMS: Final = (
    "about {units} euros",
    "roughly €{units}",
    "{units} something",
    "nearly {units} euro",
    "{units} bucks",
    "around {units}€",
)
DRIVERS: Final = (
    "{driver} was at the wheel.", "The driver's name was {driver}.", "I think he was called {driver}.",
    "A certain {driver} drove me.", "My driver {driver} can confirm it.", "It was with {driver}.",
    "The app said {driver} would come.", "Some {driver} picked me up.", "Driver: {driver}.",
    "Ask {driver}, who drove.", "{driver} is the person I mean.", "{driver} had the wheel that day.",
)  # fmt: skip
PLATES: Final = ("Plate {plate}.", "The registration was {plate}.", "Licence plate {plate} if that helps.",
                 "The car had {plate} on it.", "I noted {plate}.", "Reg no {plate}.")  # fmt: skip
VEHICLES: Final = ("A {vehicle}.", "It was one of those {vehicle} cars.", "He drove a {vehicle}.", "The {vehicle}, "
                                                                                                   "that one.",
                   "I sat in a {vehicle}.", "The car: {vehicle}.")  # fmt: skip
IDS: Final = (
    "Trip number {id}.",
    "Reference {id}.",
    "My confirmation says {id}.",
    "({id})",
    "Ride {id}",
    "The id is {id}.",
)
PLACES: Final = ("From the station to my mother's.", "I was heading to the clinic.", "It was my way home from work.",
                 "From the airport, with a lot of luggage.", "We were going to a concert.", "To the office as always.",
                 "From the harbour up the hill.", "I was on the way to pick up my boy.",
                 "Coming back from the gym.")  # fmt: skip
LAST: Final = (
    "It is the newest one on my list.", "I just stepped out of the car.", "That was my latest trip with you.",
    "The ride I finished a moment ago.", "The most recent one, obviously.", "I have this minute been dropped off.",
    "It is about my last ride.", "I mean the current trip.", "My last booking, please look it up.",
)  # fmt: skip
NOT_LAST: Final = (
    "I do not mean my latest trip.", "Not the one I took after that.", "It is not about the most recent ride, that "
                                                                       "went fine.",
    "I have been on the road with you since, that is not what I mean.", "An earlier trip, not the newest.",
    "Please do not look at the last one, it is an older ride.", "Not today's.", "This is not my last ride.",
    "I have taken others since then.",
)  # fmt: skip
BEFORE_LAST: Final = (
    "It is the trip before my latest.", "The last but one, to be precise.", "I mean the one before that.",
    "My second to last ride.", "Two rides ago.", "The ride before the most recent one.",
)  # fmt: skip
FIRST: Final = ("My first trip of the day.", "The first ride today.", "It was my first journey this morning.")
SECOND: Final = ("The second trip of the day.", "My second ride today.", "Second ride of the day.")
OPENINGS: Final = (
    "Hello there,",
    "Good evening",
    "Dear team,",
    "hi",
    "Hey folks,",
    "Morning!",
    "Sir or Madam,",
    "",
    "Hallo,",
)
CLOSINGS: Final = ("Yours, {name}", "Best wishes\n{name}", "Please sort this out.", "Thanks in advance",
                   "Sincerely\n{name}",
                   "I look forward to hearing from you", "Waiting for your answer.", "Bye, {name}", "")  # fmt: skip
SUBJECTS: Final = (
    "Complaint",
    "Problem",
    "Please help",
    "Question",
    "Not happy",
    "My trip",
    "Hello",
    "Urgent",
    "Feedback",
)

ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "account": (
        "I would like you to erase my profile for good.", "My surname changed after the wedding, where do I enter "
                                                          "that?",
        "How can I have two e-mail addresses on one account?", "Somebody has taken over my account.",
        "Please stop sending me advertising.", "My account has been locked since Sunday.",
        "I moved and need another phone number in my profile.", "Which data about me do you keep?",
        "My credit card has run out and I want to put in the new one.",
    ),
    "password": (
        "The text with the code does not reach me.", "I am unable to log in on my tablet.", "It says wrong password "
                                                                                            "although it is right.",
        "How do I reset my password?", "The sign-up stops at step three.", "My PIN is refused.",
    ),
    "promotion": (
        "The voucher from the magazine is not accepted.", "My neighbour got a free ride for recruiting me, I did not.",
        "SPRING20 does nothing when I type it in.", "When do my bonus points run out?",
        "You promised 5 euros off for the next trip.", "Is there a discount for students?",
        "I entered the promo code of my friend and nothing changed.", "Does the monthly pass renew by itself?",
        "My referral credit is missing.",
    ),
    "gift": ("I bought a gift card for 50 euros and it was never delivered.", "Can I pay with a gift voucher that I "
                                                                              "got at work?",
             "The gift card number is unreadable.")  ,
    "driving": (
        "What does one earn when driving for you?", "I own an estate car and would love to work with you.",
        "My application as a driver is pending for weeks.", "Which papers do I need to become a driver?",
        "Are you hiring in my area?", "How old may a car be if I want to be one of your drivers?",
    ),
    "question": (
        "Do dogs travel for free?", "Will you come to the villages by the lake one day?", "What would a trip to the "
                                                                                          "coast cost on a Sunday?",
        "Can I reserve a car for tomorrow at 5 in the morning?", "Are there cars with a ramp?", "Is it cheaper "
                                                                                                "after 9 pm?",
        "How long before a flight should I order?", "Do you take cash?", "May children ride on their own?",
    ),
    "other people": (
        "Your car with the dented door has been parked on our lawn since 8 this morning.",
        "My son lost his cap in one of your cars, he has his own account.",
        "A driver of yours nearly knocked me off my bicycle yesterday.",
        "My aunt was overcharged last Tuesday and has no computer, so I write for her.",
        "I saw one of your people throw rubbish out of the window around noon.",
        "My flatmate was left standing on Friday night and is too shy to complain.",
    ),
    "opinion": (
        "The prices in the morning rush are beyond belief.", "The new colours of the app hurt my eyes.",
        "You should really offer bicycles too.", "I have nothing to complain about, keep it up.",
        "Why are there so few cars at night?", "This is a general remark and not about any one trip: train your "
                                               "people.",
        "Your adverts on the bus are misleading.", "I think drivers should get more of the fare.",
        "Not about a trip of mine, I only want to know who runs this company.",
    ),
}  # fmt: skip
NEWS: Final = (
    ("Ride more, pay less", "For one week you get 15 % off with us. No code needed, just open the app."),
    ("Changes to our privacy policy", "From next month a new version applies. You can read it on our site."),
    ("Now in your part of town", "We have put forty more cars on the road between 6 and 9 in the morning."),
    ("Your opinion counts", "Please take part in our short survey, there are three prizes of 50 euros."),
    ("Invite and earn", "Send your personal code to somebody and both of you get 5 euros."),
    ("Winter is coming", "Our drivers have mounted winter tyres. Travel safely."),
)  # fmt: skip
RECEIPTS: Final = (
    ("Your receipt", "Thanks for travelling with us, {name}.\nOn {date} at {clock}\nPaid: {amount}{id_line}"),
    ("Receipt from Rebu", "Trip of {date}, {clock}\nDriver {driver}\nSum {amount}{id_line}"),
    ("We have charged your card", "{name}, {amount} was charged for the trip of {date}.{id_line}"),
)
ANSWERS: Final = (
    "Good day {name}, we are looking into the matter and will be in touch.", "Dear {name}, sorry to read that. We "
                                                                             "credited {amount}.",
    "Hi {name}, could you send us a few more details?", "Hello, regarding {id}: our colleagues have spoken to "
                                                        "{driver}.",
    "Dear {name}, the trip of {date} at {clock} has been checked and corrected.", "We are on it, {name}.",
)  # fmt: skip
ANSWERS_ELSEWHERE: Final = (
    "Good day {name}, thanks for asking. You find all about it in the settings.", "Hi {name}, I have noted that.",
    "Dear {name}, our team for this will call you.",
)  # fmt: skip
FOLLOW_UPS: Final = (
    "Did you find out anything?", "thx", "No, that is not good enough.", "Fine by me.", "Hello? Still nothing.",
    "Good, I will wait.",
    "Where is my answer?", "Perfect, case closed.", "Please hurry.",
)  # fmt: skip
AGENT_GREETS: Final = (
    "hello this is support what happened",
    "good morning you are speaking with {agent}",
    "rebu hotline {agent} speaking",
)
AGENT_ASKS: Final = (
    "okay go on",
    "and which trip was that",
    "sorry to hear that",
    "can you say when that was",
    "let me see",
    "right",
)
AGENT_CHECKS: Final = (
    "was that your last ride",
    "is it about the most recent trip",
    "so we are speaking of your latest ride",
)
YES: Final = ("yes", "yes that one", "yeah exactly")
NO: Final = ("no", "no an earlier one", "no not that one")
