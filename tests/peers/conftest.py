"""Published tools warn of their own dependencies; here a warning is shown and is no error."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "default")
