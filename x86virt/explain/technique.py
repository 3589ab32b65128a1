"""What is said of one technique and one instruction."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Technique:
    """What one technique does with one instruction."""

    name: str
    text: str

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {"technique": self.name, "text": self.text}
