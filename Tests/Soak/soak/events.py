"""All events of a machine, as a witness had them, and whether others had the same."""

from .wire import Finding, event_key


class Log:
    """The witness's events, oldest first."""

    key = staticmethod(event_key)

    def __init__(self):
        self.keys = []
        self.places = {}
        # What somebody had at the end, and the witness has not had yet.
        self.ahead = []

    def __len__(self):
        return len(self.keys)

    def append(self, key):
        if key in self.places:
            raise Finding(f"the event came twice: {key}")
        self.places[key] = len(self.keys)
        self.keys.append(key)

    def matching(self, names, start, end):
        return [key for key in self.keys[start:end] if names is None or key[2] in names]

    def covers(self, events, names, floor, until):
        """Whether all that `names` are and that happened in between are among the events."""
        wanted = self.matching(names, floor, until)
        return not wanted or wanted[-1] in events

    def has(self, events, floor, until):
        """An event that happened before a command is there before its reply."""
        if until > floor and not self.covers(events, None, floor, until):
            raise Finding(f"an event is missing: {self.keys[until - 1]}; of {until - floor} there are {len(events)}")

    def check(self, events, names, who):
        """What somebody had is what happened, without a gap, in order. What the witness has not had yet is looked at later."""
        if not events:
            return
        if events[-1] in self.places:
            self.compare(events, names, who)
        else:
            self.ahead.append((events, names, who))

    def check_the_rest(self, is_last=False):
        waiting, self.ahead = self.ahead, []
        for events, names, who in waiting:
            if is_last or events[-1] in self.places:
                self.compare(events, names, who)
            else:
                self.ahead.append((events, names, who))

    def compare(self, events, names, who):
        if events[0] not in self.places or events[-1] not in self.places:
            raise Finding(f"{who} had an event that the witness had not: {events[0]}, {events[-1]}")
        wanted = self.matching(names, self.places[events[0]], self.places[events[-1]] + 1)
        if events != wanted:
            difference = next((pair for pair in zip(events, wanted) if pair[0] != pair[1]), (len(events), len(wanted)))
            raise Finding(f"{who} had events lost, doubled or out of order: {difference[0]} instead of {difference[1]}")
