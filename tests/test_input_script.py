"""Input scripts and keys: what they say, every bad one in one line, and how they are played; all without a machine."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.console.keys import CHARACTERS, KEYS, InputError, character_codes, chord_codes, find_chord
from x86virt.console.player import Player
from x86virt.console.script import Pause, Send, Wait, parse_script
from x86virt.console.sources import NAMES, Source
from x86virt.console.terminal_keys import CTRL_ALT_DEL, HELP, LEAVE, Typing, keys_of

FEW = settings(deadline=None, max_examples=60)
SECOND = 1000

# Scan codes of set 2 to characters of a US keyboard, written from IBM's table for this test alone.
SET_2 = {
    0x16: "1!", 0x1E: "2@", 0x26: "3#", 0x25: "4$", 0x2E: "5%", 0x36: "6^", 0x3D: "7&", 0x3E: "8*", 0x46: "9(", 0x45: "0)",
    0x4E: "-_", 0x55: "=+", 0x15: "qQ", 0x1D: "wW", 0x24: "eE", 0x2D: "rR", 0x2C: "tT", 0x35: "yY", 0x3C: "uU", 0x43: "iI",
    0x44: "oO", 0x4D: "pP", 0x54: "[{", 0x5B: "]}", 0x5D: "\\|", 0x1C: "aA", 0x1B: "sS", 0x23: "dD", 0x2B: "fF", 0x34: "gG",
    0x33: "hH", 0x3B: "jJ", 0x42: "kK", 0x4B: "lL", 0x4C: ";:", 0x52: "'\"", 0x0E: "`~", 0x1A: "zZ", 0x22: "xX", 0x21: "cC",
    0x2A: "vV", 0x32: "bB", 0x31: "nN", 0x3A: "mM", 0x41: ",<", 0x49: ".>", 0x4A: "/?", 0x29: "  ", 0x5A: "\n\n", 0x0D: "\t\t",
}  # fmt: skip
SHIFT = 0x12


def characters_of(codes: bytes) -> str:
    """What a person typed, from the codes; every key must be let go."""
    text, shift, release, down = "", 0, False, set()
    for code in codes:
        if code == 0xF0:
            release = True
            continue
        if release:
            down.remove(code)
            shift = 0 if code == SHIFT else shift
        else:
            assert code not in down
            down.add(code)
            if code == SHIFT:
                shift = 1
            else:
                text += SET_2[code][shift]
        release = False
    assert not down
    return text


@FEW
@given(st.text(st.sampled_from(sorted(CHARACTERS))))
def test_every_character_of_a_us_keyboard_can_be_typed(text: str) -> None:
    assert characters_of(b"".join(character_codes(character, "test") for character in text)) == text


def test_all_printable_ascii_is_there() -> None:
    assert {chr(code) for code in range(32, 127)} <= set(CHARACTERS)


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("enter", "5A F0 5A"),
        ("F12", "07 F0 07"),
        ("f7", "83 F0 83"),
        ("up", "E0 75 E0 F0 75"),
        ("ctrl-alt-del", "14 11 E0 71 E0 F0 71 F0 11 F0 14"),
        ("Control-C", "14 21 F0 21 F0 14"),
        ("shift-tab", "12 0D F0 0D F0 12"),
        ("ctrl--", "14 4E F0 4E F0 14"),
        ("keypad-+", "79 F0 79"),
        ("right-alt-f1", "E0 11 05 F0 05 E0 F0 11"),
        ("plus", "12 55 F0 55 F0 12"),
    ],
)
def test_names_of_keys(name: str, codes: str) -> None:
    assert chord_codes(find_chord(name, "test")) == bytes.fromhex(codes)


def test_no_two_keys_send_the_same() -> None:
    assert len({key.make() for key in KEYS.values()}) == len(KEYS)


def test_a_script_is_read_line_by_line() -> None:
    text = "# a comment\n\nls -l\n:wait login: \n::colon\n:to serial\nroot\n:key F12 enter\n:pause 0.5\n:type x\n"
    text += ":wait-screen A B\n"
    steps = parse_script(text)
    assert [type(step) for step in steps] == [Send, Wait, Send, Send, Send, Pause, Send, Wait]
    assert characters_of(b"".join(steps[0].strokes)) == "ls -l\n"
    assert steps[1] == Wait("login:", NAMES)
    assert characters_of(b"".join(steps[2].strokes)) == ":colon\n"
    assert (steps[3].device, b"".join(steps[3].strokes)) == ("serial", b"root\r")
    assert (steps[4].device, len(steps[4].strokes)) == ("keyboard", 2), "keys are the keyboard's, wherever text goes"
    assert steps[5] == Pause(0.5)
    assert (steps[6].device, b"".join(steps[6].strokes)) == ("serial", b"x")
    assert steps[7] == Wait("A B", ("screen",))
    assert parse_script(":wait-serial x")[0] == Wait("x", ("serial", "serial2"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (":wiat x", ("unknown directive ':wiat'", "did you mean wait")),
        (":", ("unknown directive ':'",)),
        (":wait", (":wait without its argument",)),
        (":wait   ", (":wait without its argument",)),
        (":type", (":type without a text",)),
        (":key", (":key without its argument",)),
        (":key entr", ("unknown key 'entr'", "did you mean enter")),
        (":key ctrl-alt-dlete", ("unknown key 'dlete'", "delete")),
        (":key ctrl-", ("unknown key",)),
        (":pause soon", ("'soon' is not a time",)),
        (":pause -1", ("is not a time",)),
        (":pause nan", ("is not a time",)),
        (":pause inf", ("is not a time",)),
        (":pause 1e9", ("is not a time",)),
        (":to printer", ("unknown device 'printer'",)),
        (":to seral", ("did you mean serial",)),
        ("größe", ("'ö'", "US keyboard")),
        ("a\x00b", ("US keyboard",)),
    ],
)
def test_bad_lines_are_named_in_one_line(line: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        parse_script("fine\n" + line, "my.keys")
    text = str(caught.value)
    assert text.startswith("my.keys, line 2: ") and "\n" not in text
    for word in words:
        assert word in text, text


@FEW
@given(st.text(max_size=200))
def test_any_text_is_a_script_or_one_line(text: str) -> None:
    try:
        parse_script(text)
    except InputError as error:
        assert len(str(error).splitlines()) == 1


# -- playing ----------------------------------------------------------------------------------------------------------


class Desk:
    """Devices that take a few bytes at each look."""

    def __init__(self, key_room: int = 16, line_room: int = 3) -> None:
        self.key_room, self.line_room = key_room, line_room
        self.keys, self.lines = bytearray(), (bytearray(), bytearray())
        self.room = [0, 0]
        self.said = {name: bytearray() for name in NAMES}

    def give_key(self, octet: int) -> bool:
        if self.room[0] == 0:
            return False
        self.room[0] -= 1
        self.keys.append(octet)
        return True

    def give_serial(self, port: int, octet: int) -> bool:
        if self.room[1] == 0:
            return False
        self.room[1] -= 1
        self.lines[port].append(octet)
        return True

    def look(self, player: Player, now: int) -> None:
        self.room = [self.key_room, self.line_room]
        player.play(now, SECOND, {name: Source(octets) for name, octets in self.said.items()}, self)


def play(script: str, desk: Desk, looks: int = 200, player: Player | None = None) -> Player:
    player = player or Player(parse_script(script))
    for number in range(looks):
        desk.look(player, number * 10)
    return player


def test_one_key_is_struck_at_each_look() -> None:
    desk, player = Desk(), Player(parse_script("ab\n:key f1 f2\n:type c"))
    for number, typed in enumerate(("a", "ab", "ab\n")):
        desk.look(player, number)
        assert characters_of(bytes(desk.keys)) == typed
    assert play("", desk, player=player).done
    assert desk.keys.endswith(bytes.fromhex("05 F0 05 06 F0 06 21 F0 21"))


def test_a_full_keyboard_gets_the_rest_of_a_key_later() -> None:
    desk = Desk(key_room=1)
    assert play("Hello, World!\n:key ctrl-alt-del", desk).done
    assert characters_of(bytes(desk.keys[: -len(chord_codes(find_chord(CTRL_ALT_DEL, ""))) ])) == "Hello, World!\n"


def test_a_serial_port_gets_what_it_takes() -> None:
    desk = Desk()
    assert play(":to serial\nuname -a\n:to serial2\nx", desk).done
    assert desk.lines == (b"uname -a\r", b"x\r")


def test_waits_look_behind_what_was_waited_for() -> None:
    desk = Desk()
    player = Player(parse_script(":to serial\n:wait # \nfirst\n:wait #\nsecond\n"))
    desk.said["serial"] += b"login ok\n# "
    play("", desk, player=player)
    assert desk.lines[0] == b"first\r", "the same prompt does not count twice"
    desk.said["screen"] += b"unrelated"
    play("", desk, player=player)
    assert player.waits_for() == "#"
    desk.said["serial"] += b"first\r\noutput\r\n#"
    play("", desk, player=player)
    assert desk.lines[0] == b"first\rsecond\r" and player.done and player.waits_for() == ""


def test_a_wait_looks_only_where_it_is_told() -> None:
    desk = Desk()
    player = Player(parse_script(":to serial\n:wait-screen ready\nx"))
    desk.said["serial"] += b"ready"
    assert not play("", desk, player=player).done
    desk.said["screen"] += b"ready"
    assert play("", desk, player=player).done


def test_a_text_that_comes_in_pieces_is_found() -> None:
    desk, player = Desk(), Player(parse_script(":wait ready>"))
    for octet in b"xx rearready>":
        assert not player.done
        desk.said["console"].append(octet)
        desk.look(player, 0)
    assert player.done


def test_a_pause_lasts_as_long_as_it_says() -> None:
    desk, player = Desk(), Player(parse_script(":to serial\n:pause 0.05\nx"))
    for now in range(0, 60, 10):
        assert desk.lines[0] == b""
        desk.look(player, now)
    assert desk.lines[0] == b"x\r"


@FEW
@given(st.integers(0, 40), st.integers(1, 4))
def test_a_player_that_was_saved_goes_on_alike(cut: int, room: int) -> None:
    script = "Ab\n:to serial\n:wait # \nfirst line\n:pause 0.1\n:key ctrl-alt-del\nlast"
    text = b"boot\n# "
    desks = Desk(room), Desk(room)
    whole = Player(parse_script(script))
    player = Player(parse_script(script))
    for number in range(120):
        for desk in desks:
            desk.said["serial"][:] = text[: max(0, number - 3)]
        desks[0].look(whole, number * 10)
        if number == cut:
            state = json.loads(json.dumps(player.state()))
            player = Player(parse_script(script))
            player.restore(state)
        desks[1].look(player, number * 10)
        assert (desks[0].keys, desks[0].lines) == (desks[1].keys, desks[1].lines)
    assert whole.done and player.done


@FEW
@given(
    st.sampled_from(["position", "stroke", "octet", "resume_tick", "places", "watch"]),
    st.one_of(st.integers(-5, 1 << 70), st.none(), st.text(max_size=3), st.dictionaries(st.text(max_size=6), st.integers())),
)
def test_a_damaged_state_is_refused_or_harmless(name: str, value: object) -> None:
    script = parse_script("a\n:wait b\nc")
    state = Player(script).state()
    state[name] = value
    player = Player(script)
    try:
        player.restore(state)
    except (ValueError, TypeError, KeyError):
        return
    play("", Desk(), 5, player)


# -- a person's keys --------------------------------------------------------------------------------------------------


def test_ctrl_a_is_for_the_person() -> None:
    typing = Typing()
    assert list(typing.split(b"ab\x01xcd\x01\x01e\x01h\x01d")) == [b"ab", LEAVE, b"cd\x01e", HELP, CTRL_ALT_DEL]
    assert list(typing.split(b"f\x01")) == [b"f"]
    assert list(typing.split(b"x")) == [LEAVE], "a prefix waits for the key behind it"
    assert list(typing.split(b"\x01qz")) == [b"z"], "an unknown command is nothing"


@pytest.mark.parametrize(
    ("octets", "names"),
    [
        (b"\r", ["enter"]),
        (b"\x7f", ["backspace"]),
        (b"\x1b", ["esc"]),
        (b"\x1b[A\x1b[24~\x1bOP", ["up", "f12", "f1"]),
        (b"\x03", ["ctrl-c"]),
        (b"\t", ["tab"]),
        (b"\x1bx", ["alt-x"]),
        (b"aZ", ["a", "shift-z"]),
        ("ä".encode(), []),
        (b"\x1b[Z", ["shift-tab"]),
    ],
)
def test_what_a_terminal_sends_becomes_keys(octets: bytes, names: list[str]) -> None:
    assert keys_of(octets) == [chord_codes(find_chord(name, "test")) for name in names]


@FEW
@given(st.binary(max_size=40))
def test_no_bytes_of_a_terminal_are_too_much(octets: bytes) -> None:
    for piece in Typing().split(octets):
        if isinstance(piece, bytes):
            assert all(codes for codes in keys_of(piece))
