"""One page for all tests of the browser and of the server: two tiny runs and a folder of images."""

from collections.abc import Iterator

import pytest
from live import photo, train_with
from PIL import Image
from served import Served

from latentseg.demo import serve


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of a run with latent classes beside a supervised one; it takes uploads of 1 MB."""
    folder = tmp_path_factory.mktemp("served")
    ours = train_with(folder / "ours")
    plain = train_with(folder / "plain", "method.name=supervised", "seed=1")
    (folder / "images").mkdir()
    for number in range(2):
        Image.fromarray(photo(40, 60, number)).save(folder / "images" / f"{number}.png")
    (folder / "images" / "broken.png").write_bytes(b"no image")
    models = serve.open_models(ours, plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "UPLOAD", 2**20)
        with serve.served(models, images=folder / "images") as address:
            yield Served(address, models, folder)
