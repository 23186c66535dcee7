"""Tables, progress displays and report files of the commands."""
