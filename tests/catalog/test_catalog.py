"""Catalogs from manifests and folders: what is read, and which mistakes are named."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlli_jax.catalog import Catalog
from rlli_jax.errors import InputError
from rlli_jax.judges import scale_of
from rlli_jax.judges.recorded import RecordedJudge

AGIQA3K = Path(__file__).parents[3] / "shared/data/agiqa3k/images.csv"


def save(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), level, np.uint8)).save(path)


def manifest(folder: Path, *rows: str, header: str = "provider,request,image") -> Path:
    path = folder / "images.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_manifest_with_a_hole_and_further_columns(tmp_path: Path) -> None:
    for level, name in enumerate(["b-tea.png", "sub/a-tea.png", "a-sea.png"]):
        save(tmp_path / name, level)
    path = manifest(
        tmp_path,
        "5,B,a cup of tea,b-tea.png",
        '4,A,"a cup of tea",sub/a-tea.png',
        "3,A,the sea,a-sea.png",
        header="score,provider,request,image",
    )
    catalog = Catalog.from_manifest(path)
    assert catalog.providers == ("B", "A")
    assert catalog.requests == ("a cup of tea", "the sea")
    levels = [
        [picture and picture.pixels[0, 0, 0] for picture in map(catalog.picture, (r, r), (0, 1))]
        for r in (0, 1)
    ]
    assert levels == [[0, 1], [None, 2]]
    assert catalog.locate("sub/a-tea.png") == ("a cup of tea", "A")
    catalog.check()


def test_manifest_of_names_only(tmp_path: Path) -> None:
    path = manifest(tmp_path, "A,tea,nowhere.png", "B,tea,elsewhere.png")
    catalog = Catalog.from_manifest(path, pictures=False)
    assert catalog.locate("elsewhere.png") == ("tea", "B")
    assert catalog.picture(0, 0) is None
    catalog.check()


def test_locate_names_what_it_cannot_find(tmp_path: Path) -> None:
    path = manifest(tmp_path, "A,tea,same.png", "B,tea,same.png")
    catalog = Catalog.from_manifest(path, pictures=False)
    with pytest.raises(InputError, match=r"no image named 'other.png'"):
        catalog.locate("other.png")
    with pytest.raises(InputError, match=r"2 images named 'same.png'"):
        catalog.locate("same.png")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("A,tea,gone.png", r"row 2 below the header: the image .*gone.png is missing"),
        (
            "A,tea,../outside.png",
            r"row 2 .*: the image path '../outside.png' leads out of",
        ),
        ("A,tea,{absolute}", r"row 2 .*: the image path '/.*ok.png' leads out of"),
        ("A,tea,link.png", r"row 2 .*: the image path 'link.png' leads out of"),
        ("A,tea,loop.png", r"row 2 below the header: .*loop.png"),
        ("A,tea,{long}", r"row 2 below the header: .* is not a usable path"),
        (
            "A,sea,ok.png",
            r"row 2 .*provider 'A' already has a picture for 'sea' \(.*row 1 ",
        ),
        ("A,tea,", r"row 2 below the header: image is empty"),
        ("A", r"row 2 below the header: request is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    folder = tmp_path / "catalog"
    save(folder / "ok.png")
    save(tmp_path / "outside.png")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    row = row.format(absolute=folder / "ok.png", long="x" * 5000)
    with pytest.raises(InputError, match=message):
        Catalog.from_manifest(manifest(folder, "A,sea,ok.png", row))


def test_a_link_that_stays_inside_is_fine(tmp_path: Path) -> None:
    save(tmp_path / "ok.png", 9)
    (tmp_path / "link.png").symlink_to(tmp_path / "ok.png")
    picture = Catalog.from_manifest(manifest(tmp_path, "A,tea,link.png")).picture(0, 0)
    assert picture is not None
    assert picture.pixels.max() == 9


def test_a_bad_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images.csv: there is no such file"):
        Catalog.from_manifest(tmp_path / "images.csv")
    with pytest.raises(InputError, match=r"the file cannot be parsed"):
        Catalog.from_manifest(tmp_path)
    with pytest.raises(InputError, match=r"no column 'image'; the file has provider, req"):
        Catalog.from_manifest(manifest(tmp_path, "A,tea", header="provider,request"))
    with pytest.raises(InputError, match=r"images.csv: the file has no rows"):
        Catalog.from_manifest(manifest(tmp_path))
    (tmp_path / "images.csv").write_bytes(b"provider,request,image\nA,\xff\xfe,x.png\n")
    with pytest.raises(InputError, match=r"is not in UTF-8 \(byte 0xff at place 25\)"):
        Catalog.from_manifest(tmp_path / "images.csv")
    (tmp_path / "images.csv").write_bytes(b"")
    with pytest.raises(InputError, match=r"the file is empty"):
        Catalog.from_manifest(tmp_path / "images.csv")


def test_check_decodes_everything_and_names_the_first_bad_picture(tmp_path: Path) -> None:
    save(tmp_path / "ok.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    catalog = Catalog.from_manifest(manifest(tmp_path, "A,tea,ok.png", "B,tea,bad.png"))
    with pytest.raises(InputError, match=r"bad.png is not a PNG"):
        catalog.check()


def test_folder(tmp_path: Path) -> None:
    save(tmp_path / "b" / "a_cup-of_tea.png", 1)
    save(tmp_path / "a" / "a cup of tea.webp", 2)
    save(tmp_path / "a" / "Sea.JPG", 3)
    save(tmp_path / ".thumbnails" / "Sea.png", 4)
    (tmp_path / "a" / "notes.txt").write_text("nothing to see")
    with pytest.warns(UserWarning, match=r"left out files that are no .* \(1\): a/notes.txt"):
        catalog = Catalog.from_folder(tmp_path)
    assert catalog.providers == ("a", "b")
    assert catalog.requests == ("Sea", "a cup of tea")
    assert catalog.picture(0, 1) is None
    picture = catalog.picture(1, 1)
    assert picture is not None
    assert picture.pixels.shape == (4, 6, 3)
    assert picture.pixels.max() == 1
    assert catalog.locate("a/Sea.JPG") == ("Sea", "a")


@pytest.mark.skipif(not AGIQA3K.exists(), reason="the shared cases are not there")
def test_a_folder_from_a_mac_has_no_hidden_files() -> None:
    catalog = Catalog.from_folder(AGIQA3K.parents[2] / "cases/14/mac")
    assert (catalog.providers, catalog.requests) == (("dalle", "sd"), ("a cat",))
    catalog.check()


def test_hidden_and_system_files_are_ignored_and_other_formats_named(tmp_path: Path) -> None:
    for name in ("sd/a_cat.png", "sd/.hidden.png", "__MACOSX/a.png", ".cache/a.png"):
        save(tmp_path / name)
    (tmp_path / "sd/Thumbs.db").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Catalog.from_folder(tmp_path).requests == ("a cat",)
    for name in ("sd/a_dog.tiff", "sd/a_cow.HEIC"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"no .png.* \(2\): sd/a_cow.HEIC, sd/a_dog.tiff"):
        Catalog.from_folder(tmp_path)
    (tmp_path / "sd/a_cat.png").unlink()
    with pytest.raises(InputError, match=r"no images.*that are no .* \(2\): sd/a_cow.HEIC"):
        Catalog.from_folder(tmp_path)


@pytest.mark.parametrize("spelling", ["city_night", "city night", "city_night.png"])
def test_scores_name_a_request_as_its_file_or_as_the_catalog_does(
    tmp_path: Path, spelling: str
) -> None:
    save(tmp_path / "sd/city_night.png")
    (tmp_path / "scores.csv").write_text(f"user,request,provider,score\nAnn,{spelling},sd,3\n")
    catalog = Catalog.from_folder(tmp_path)
    judge = RecordedJudge.from_file(tmp_path / "scores.csv", catalog, scale=scale_of("1-5"))
    assert judge.scores == {("Ann", "city night", "sd", 0): 3}


@pytest.mark.parametrize(
    ("request_name", "provider", "message"),
    [
        ("City nihgt", "sd", "request 'City nihgt' is not in the catalog; did you mean 'city ni"),
        ("city night", "SD1", "provider 'SD1' is not in the catalog; did you mean 'sd'"),
        ("zebra", "sd", "request 'zebra' is not in the catalog; it has city night"),
    ],
)
def test_a_name_that_matches_nothing_gets_the_nearest(
    tmp_path: Path, request_name: str, provider: str, message: str
) -> None:
    save(tmp_path / "sd/city_night.png")
    (tmp_path / "s.csv").write_text(f"user,request,provider,score\nA,{request_name},{provider},3\n")
    with pytest.raises(InputError, match=message):
        RecordedJudge.from_file(
            tmp_path / "s.csv", Catalog.from_folder(tmp_path), scale=scale_of("1-5")
        )


def test_a_bad_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere is not a folder"):
        Catalog.from_folder(tmp_path / "nowhere")
    save(tmp_path / "top.png")
    with pytest.raises(InputError, match=r"holds no images"):
        Catalog.from_folder(tmp_path)
    save(tmp_path / "a" / "tea.png")
    save(tmp_path / "a" / "tea.jpg")
    with pytest.raises(InputError, match=r"provider 'a' already has a picture for 'tea'"):
        Catalog.from_folder(tmp_path)


def test_a_folder_with_a_link_out_of_it_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "private" / "tea.png")
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "a").symlink_to(tmp_path / "private")
    with pytest.raises(InputError, match=r"leads out of"):
        Catalog.from_folder(tmp_path / "catalog")


@pytest.mark.skipif(not AGIQA3K.exists(), reason="needs ../shared/data/agiqa3k")
def test_agiqa3k_names() -> None:
    catalog = Catalog.from_manifest(AGIQA3K, pictures=False)
    assert (len(catalog.providers), len(catalog.requests)) == (10, 200)
    assert len(catalog.images) == 1987
    assert catalog.locate("AttnGAN_normal_003.jpg") == ("a cosmic universe", "AttnGAN_normal")


def test_a_pair_is_offered_also_where_only_the_name_of_its_picture_is_known(tmp_path):
    (tmp_path / "images.csv").write_text("provider,request,image\np,a,1.png\nq,b,2.png\n")
    catalog = Catalog.from_manifest(tmp_path / "images.csv", pictures=False)
    assert [[catalog.offers(r, p) for p in range(2)] for r in range(2)] == [
        [True, False],
        [False, True],
    ]
    assert Catalog.studio().offers(0, 0)
