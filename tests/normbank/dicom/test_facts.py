"""Facts of the scanner: BIDS names and units, nothing of the patient."""

import json

import pydicom
import pytest

from normbank.dicom.facts import FREE_TEXT, facts_of
from normbank.services.matching import explain
from tests.support.dicom import CANARY, Phantom


def header(**values):
    image = Phantom().images()[0]
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return image


def test_units_are_those_of_bids():
    facts = facts_of(header(InversionTime=900), b"salt")
    assert facts["RepetitionTime"] == 1.9
    assert facts["EchoTime"] == 0.0035
    assert facts["InversionTime"] == 0.9
    assert facts["FlipAngle"] == 9
    assert facts["MagneticFieldStrength"] == 3
    assert facts["PixelSpacing"] == [2.5, 2.0]
    assert facts["ScanningSequence"] == ["GR", "IR"]
    assert facts["ImageType"] == ["ORIGINAL", "PRIMARY", "M"]
    assert facts["ManufacturersModelName"] == facts["ManufacturerModelName"] == "Pencil 3T"


def test_a_field_in_gauss_is_brought_to_tesla():
    assert facts_of(header(MagneticFieldStrength=15000), b"")["MagneticFieldStrength"] == 1.5


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("SIEMENS", "Siemens"),
        ("Siemens Healthineers", "Siemens"),
        ("GE MEDICAL SYSTEMS", "GE"),
        ("Philips Medical Systems", "Philips"),
        ("Genuine Scanners", "Genuine Scanners"),
    ],
)
def test_makers_are_written_as_in_sidecars(written, name):
    assert facts_of(header(Manufacturer=written), b"")["Manufacturer"] == name


def test_an_enhanced_image_has_the_same_facts():
    image = Phantom().enhanced()
    facts = facts_of(image, b"salt")
    assert facts["EchoTime"] == 0.0035
    assert facts["SliceThickness"] == 3.0
    assert facts["PixelSpacing"] == [2.5, 2.0]
    assert facts["Manufacturer"] == "Drawn Systems"


def test_the_serial_number_is_a_salted_hash_or_nothing():
    one, other = (facts_of(header(), salt)["DeviceSerialNumber"] for salt in (b"a", b"b"))
    assert len(one) == len(other) == 16
    assert one != other
    assert int(one, 16)
    assert one == facts_of(header(InstanceNumber=9), b"a")["DeviceSerialNumber"]
    assert "DeviceSerialNumber" not in facts_of(header(), b"")


def test_nothing_of_the_patient_is_among_them():
    facts = facts_of(header(StationName="MR-WARD-7", InstitutionName="St. Nowhere"), b"salt")
    kept = {name: value for name, value in facts.items() if name not in FREE_TEXT}
    said = json.dumps(kept)
    for secret in (CANARY, "canary", "19700101", "WARD-7", "Nowhere", "424242", "20200101"):
        assert secret not in said
    assert "canary" in facts["SeriesDescription"]  # rules may read it, nobody may keep it


def test_rules_of_domains_read_them():
    rules = {
        "MagneticFieldStrength": {"min": 2.5},
        "ScanningSequence": "ir",
        "RepetitionTime": {"max": 2},
        "SeriesDescription": {"regex": "^t1"},
    }
    assert all(outcome.holds for outcome in explain(rules, facts_of(header(), b"")))


def test_what_makes_no_sense_is_left_out():
    image = pydicom.Dataset()
    for number, value in ((0x00180080, b"fast"), (0x00180087, b"-3"), (0x00280030, b"1\\x")):
        tag = pydicom.tag.Tag(number)
        image._dict[tag] = pydicom.dataelem.RawDataElement(
            tag, "DS", len(value), value, 0, False, True
        )
    assert facts_of(image, b"salt") == {}
