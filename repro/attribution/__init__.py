"""Attribution of wrong numbers: compiler, driver or reference."""
