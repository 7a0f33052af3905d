"""Exercises in code: functions of this project with their bodies taken out, and checks of what a reader writes instead."""
