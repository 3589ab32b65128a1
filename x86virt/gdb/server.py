"""The listening socket, on the loopback interface only, and one client after the other.

A client that detaches or hangs up leaves the machine as it is, and the server waits for the next one (unless it is to
serve only one); one that kills it, or lets the guest's end go, ends the server.
"""

import socket
from collections.abc import Callable

from ..errors import UserError
from .framing import Connection, ConnectionLost
from .session import Left, Session
from .travel import Travel

LOOPBACK = "127.0.0.1"


class Server:
    """Serves one machine. Raises UserError if the port cannot be had."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind((LOOPBACK, port))
            self.socket.listen(1)
        except OSError as error:
            self.socket.close()
            raise UserError(f"port {port}", f"cannot be listened on ({error.strerror})", "give another --port, or 0") from None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.socket.getsockname()[1])

    def serve(self, travel: Travel, once: bool = False, say: Callable[[str], None] = lambda text: None) -> None:
        """Serve clients until one ends the machine; `once`: only the first."""
        with self.socket:
            while True:
                stream, _ = self.socket.accept()
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                left = self.talk(travel, Connection(stream))
                say("the client has left" if left is Left.DETACHED else "the client has ended the machine")
                if once or left is Left.KILLED:
                    return

    @staticmethod
    def talk(travel: Travel, connection: Connection) -> Left:
        """One client, until it leaves."""
        session = Session(travel, connection)
        try:
            return session.run()
        except ConnectionLost:
            return session.left or Left.DETACHED
        finally:
            connection.close()
