"""What all requests of `protocol` are made of."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

# Ids fit a signed 64-bit integer, which every client's language has.
RequestId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Revision: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]
LogIndex: TypeAlias = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 63) - 1)]
Signed: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
# What can't be a name, an address or a key is refused when it is read, before anybody keeps it. The
# sentences for people about those that are a little too long are elsewhere.
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=255)]
Address: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]
KeyText: TypeAlias = Annotated[str, msgspec.Meta(max_length=4096)]
Proof: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=64)]
OneShotId: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


# What decoding foreign bytes can raise; msgspec's errors and UnicodeDecodeError are ValueErrors.
UNREADABLE = (ValueError, OverflowError, RecursionError)


class BaseRequest(msgspec.Struct, frozen=True, array_like=True, tag_field="op", gc=False):
    """`id` is the client's number for this request, unique among those it has in flight."""

    id: RequestId
