"""The past of a machine: snapshots by place, dense near the present and sparse long ago."""

import time

from .place import Place
from .snapshots import Camera, Snapshot

EVERY = 4_000_000  # guest instructions between snapshots, at first
MOST = 48  # snapshots that are kept
REST = 10.0  # times what a snapshot took, before the next one


class History:
    """Snapshots in the order of time. The first one is where the history begins, and is always kept."""

    def __init__(self, camera: Camera, every: int = EVERY, most: int = MOST) -> None:
        self.camera, self.every, self.most = camera, every, most
        self.snapshots: list[Snapshot] = [camera.take()]
        self.rest = REST
        self.not_before = 0.0  # on the host's clock

    @property
    def begin(self) -> Place:
        """Where it begins."""
        return self.snapshots[0].place

    def before(self, place: Place) -> list[Snapshot]:
        """The snapshots before a place, the last one first."""
        return [snapshot for snapshot in reversed(self.snapshots) if snapshot.place < place]

    def at_or_before(self, place: Place) -> Snapshot:
        """The last snapshot that is not behind a place."""
        return next(snapshot for snapshot in reversed(self.snapshots) if snapshot.place <= place)

    def base(self, retired: int, place: Place) -> Snapshot:
        """Where to begin in order to come to the first boundary behind `retired` instructions, all before a place.

        What the debugger wrote is never skipped: the last altered snapshot before the place is the earliest answer.
        """
        earlier = self.before(place)
        return next((one for one in earlier if one.altered or one.place.retired < retired), earlier[-1])

    def look(self, place: Place) -> None:
        """Take a snapshot of the present, which is `place`, if the last one before it is long ago.

        A large machine takes long to copy: then snapshots are rarer, so that about a tenth of the time is theirs.
        """
        last = self.at_or_before(place)
        began = time.monotonic()
        if place.retired - last.place.retired < self.every or began < self.not_before:
            return
        self.insert(self.camera.take())
        now = time.monotonic()
        self.not_before = now + self.rest * (now - began)

    def insert(self, snapshot: Snapshot) -> None:
        """Add a snapshot in its order, and drop one if there are too many."""
        later = [index for index, other in enumerate(self.snapshots) if other.place > snapshot.place]
        place = later[0] if later else len(self.snapshots)
        self.snapshots.insert(place, snapshot)
        if len(self.snapshots) > self.most:
            self.thin(snapshot.place)

    def thin(self, present: Place) -> None:
        """Drop the snapshot that is missed least: whose neighbours are closest together for how far away they are."""

        def weight(index: int) -> float:
            gap = self.snapshots[index + 1].place.retired - self.snapshots[index - 1].place.retired
            return gap / (abs(present.retired - self.snapshots[index].place.retired) + self.every)

        inner = [index for index in range(1, len(self.snapshots) - 1) if not self.snapshots[index].altered]
        if inner:
            del self.snapshots[min(inner, key=weight)]

    def alter(self) -> None:
        """The debugger wrote registers or memory: what came later will come otherwise, and the present is a new start."""
        snapshot = self.camera.take(altered=True)
        self.snapshots = [other for other in self.snapshots if other.place < snapshot.place]
        self.snapshots.append(snapshot)

    def go_on(self, place: Place) -> None:
        """The run goes on from a place: what the debugger wrote later than that is forgotten."""
        for index, snapshot in enumerate(self.snapshots):
            if snapshot.altered and snapshot.place > place:
                del self.snapshots[index:]
                return
