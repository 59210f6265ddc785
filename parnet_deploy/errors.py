"""Every error this package raises on purpose, as one tree.

    ParnetDeployError                 exit 1: ours, one line, no traceback
    ├── CheckpointError               the weights cannot be used
    │   ├── UnsafeCheckpointError     the file wants to run code
    │   └── AlreadyFusedError         the weights are no longer in training form
    ├── SpecError                     a network, size or option that cannot be
    ├── DeploymentError               the deployment directory cannot be used
    │   ├── DeploymentNotFoundError   none there, or several and no name given
    │   ├── DeploymentCorruptError    an artifact or the manifest was changed
    │   ├── DeploymentChangedError    another command rewrote it while it was read
    │   └── DeploymentUntrustedError  no trusted key has signed it as it is
    ├── InputError                    the caller's data: shape, dtype, device, layout
    ├── BackendError                  an engine cannot be built, loaded or run
    │   ├── MissingExtraError         an optional package is not installed
    │   ├── DeviceUnavailableError    the machine has no such device
    │   ├── EngineBuildError          building an engine failed
    │   ├── EngineLoadError           an engine file cannot be loaded here
    │   ├── ExecutionError            one run failed; the next may succeed
    │   │   └── TimedOutError         its engines did not come back in time
    │   ├── OutOfMemoryError          the device has too little memory
    │   └── DeviceLostError           sticky: the device must not be used again
    ├── SigningError                  a key cannot be used to sign, or to trust
    ├── ServeError                    the server cannot start: address, token, certificate
    └── CheckFailedError              exit 3: a proof did not hold

A message reads ``<what> <where>: got <x>, expected <y>. <next step>.`` Anything that is not a
``ParnetDeployError`` is a bug and keeps its traceback.
"""

from __future__ import annotations


class ParnetDeployError(Exception):
    """Base of all errors raised on purpose. ``exit_code`` is what the command line returns."""

    exit_code = 1


class CheckpointError(ParnetDeployError):
    """The checkpoint is unreadable, or its tensors are not those of a trained ParNet."""


class UnsafeCheckpointError(CheckpointError):
    """The checkpoint would need unrestricted unpickling, which can run code. Nothing was run."""


class AlreadyFusedError(CheckpointError):
    """The weights are fused already; fusing needs the training form."""


class SpecError(ParnetDeployError):
    """A network description, input size or option that no ParNet can have."""


class DeploymentError(ParnetDeployError):
    """The deployment directory cannot be read or written."""


class DeploymentNotFoundError(DeploymentError):
    """No deployment where one was looked for, or several and no name was given."""


class DeploymentCorruptError(DeploymentError):
    """An artifact, or the manifest, is not the one that was written."""


class DeploymentChangedError(DeploymentError):
    """Another command rewrote the deployment while it was read. Open it again."""


class DeploymentUntrustedError(DeploymentError):
    """Keys are trusted, and none of them has signed the deployment as it is. Nothing was run."""


class InputError(ParnetDeployError):
    """The caller's data has a wrong shape, dtype, device or layout. No buffer was touched."""


class BackendError(ParnetDeployError):
    """An engine cannot be built, loaded or run."""


class MissingExtraError(BackendError):
    """An optional package is missing; the message names the pip command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"package {package}: not installed. Run: pip install 'parnet-deploy[{extra}]'."
        )
        self.package = package
        self.extra = extra


class DeviceUnavailableError(BackendError):
    """The machine does not have the device that was asked for."""


class EngineBuildError(BackendError):
    """The backend could not build an engine; its own log is part of the message."""


class EngineLoadError(BackendError):
    """An engine file cannot be loaded on this machine."""


class OutOfMemoryError(BackendError):
    """The device has not enough memory for the engines, buffers or slots that were asked for."""


class ExecutionError(BackendError):
    """One run failed. Buffers of the caller are untouched; the next run may succeed."""


class TimedOutError(ExecutionError):
    """The engines did not come back within the time limit of the runtime.

    Buffers of the caller are untouched, and nothing reads or writes them later. What was given up
    may still run; until it comes back its slot is out of use.
    """


class DeviceLostError(BackendError):
    """The device reported an error that no later call can recover from (sticky).

    ``device`` is its ordinal where that is known.
    """

    def __init__(self, message: str, device: int | None = None) -> None:
        super().__init__(message)
        self.device = device


class SigningError(ParnetDeployError):
    """A key file cannot be used: not there, not Ed25519, open to others, or a wrong passphrase."""


class ServeError(ParnetDeployError):
    """The server cannot start: an address, port, token or certificate cannot be used."""


class CheckFailedError(ParnetDeployError):
    """A proof did not hold: parity, accuracy or regression. Nothing was published."""

    exit_code = 3
