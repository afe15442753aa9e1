"""An address in use: by a bound link, or by a listener."""

from __future__ import annotations

from proclink import _address, _fork
from proclink._aside import errands
from proclink._options import Options
from proclink.transports import transport_for
from proclink.transports._contract import Endpoint, Gate


class Binding:
    """An endpoint, with the gate through which newcomers come.

    Opened and closed as errands: no signal handler comes in between, and a finalizer need not wait.
    Whatever interrupts its owner, the address is free at the latest when this object goes.

    Raises:
        ProclinkError: See :func:`proclink.bind`.
    """

    _endpoint: Endpoint | None = None

    def __init__(self, url: str, options: Options, gate: Gate) -> None:
        self._gate = gate
        _fork.on_fork(self, Binding._leave_to_parent)
        address = _address.parse(url)
        begin = transport_for(address).prepare(address)

        def listen() -> None:
            self._endpoint = begin(options, gate)
            self.url = str(self._endpoint.address)

        try:
            errands.call(listen)
        except BaseException:
            errands.later(self._end)  # after listen(), which may be under way
            raise

    def close(self) -> None:
        """Gives the address back. Again does nothing."""
        errands.settle(self._close_endpoint)

    def _close_endpoint(self) -> None:
        if self._endpoint is not None:
            self._endpoint.close()
            self._endpoint = None

    def _end(self) -> None:
        self._close_endpoint()
        self._gate.close()

    def forget(self) -> None:
        """The same for finalizers, which wait for nobody."""
        # The gate is its owner's, whose finalizer may run after this one and asks if it is shut.
        if self._endpoint is not None:
            errands.later(self._close_endpoint)

    def __del__(self) -> None:
        self.forget()

    def _leave_to_parent(self) -> None:
        self._endpoint = None
