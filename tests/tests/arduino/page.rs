//! `docs/devices/arduino.md`, as its reader types it.
