#!/bin/sh
# In place of rustc for this crate alone: takes the half of src/os for macOS on this system too. scripts/test-portable.sh uses it.
rustc=$1
shift
exec "$rustc" "$@" --cfg llamagate_portable
