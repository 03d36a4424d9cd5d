"""Devices: boards over SSH and phones over adb, on which plans are executed as they are on this machine."""
