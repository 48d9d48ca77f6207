"""Data sets as they are downloaded, and other formats than WFDB: small files in their true form, read and compared."""

import csv
import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
from conftest import LEADS, fake_ecg, write_record

from data.formats import mimic
from data.labels import load_class_set
from data.leads import lead_name
from data.metadata import read_metadata
from data.metadata_files import find_table
from data.preprocess import SignalConfig, preprocess
from data.records import RecordError, find_records, read_record

CONFIG = SignalConfig()
TINY = tuple("--stem 8 --widths 8 8 --depths 1 1 --epochs 1 --batch_size 8 --no-plots".split())


def rows_of(file):
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install {package}")


# ---- MIMIC-IV-ECG


def test_mimic_is_read_from_its_list(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["subject_id,study_id,file_name,ecg_time,path"]
    for subject, study in ((10000032, 40689238), (10000032, 44458630), (10000117, 45090959)):
        inside = f"files/p1000/p{subject}/s{study}/{study}"
        write_record(tmp_path / inside.rpartition("/")[0], str(study), fake_ecg(rng), dx="Unknown")
        lines.append(f"{subject},{study},{study},2180-07-23 08:44:00,{inside}")
    header = tmp_path / "files/p1000/p10000032/s40689238/40689238.hea"
    text = header.read_text().splitlines()
    text[5], text[6] = text[6], text[5]  # MIMIC has aVF before aVL
    header.write_text("\n".join(text) + "\n")
    (tmp_path / mimic.LIST).write_text("\n".join(lines) + "\n")
    records = find_records(tmp_path)
    assert [record.record_id for record in records] == ["40689238", "44458630", "45090959"]
    adc, header = read_record(records[0])
    x = preprocess(adc, header, SignalConfig(sample_freq=500))
    assert np.array_equal(x[4], adc[5] / np.float32(1000)) and np.array_equal(x[5], adc[4] / np.float32(1000))
    assert records[0].source == "files/p1000/p10000032/s40689238"
    metadata = read_metadata(find_table(tmp_path), [record.name for record in records])
    assert metadata.patient_ids.tolist() == ["10000032", "10000032", "10000117"]
    shutil.rmtree(tmp_path / "files/p1000/p10000117")
    assert ["1 recordings that are not there" in record.fault for record in find_records(tmp_path)] == [
        True,
        False,
        False,
    ]


# ---- other formats: the same recording in each of them


@pytest.fixture(scope="module")
def ecg(sample):
    """A real recording: millivolts (12, 5000) and its Header."""
    adc, header = read_record(sample / "georgia" / sorted((sample / "georgia").glob("*.hea"))[0].stem)
    assert header.lead_names == LEADS and header.sample_freq == 500
    return adc / header.leads[0].gain, header


def millivolts(record):
    """A recording at its own rate, as models would see it."""
    adc, header = read_record(record)
    return preprocess(adc, header, SignalConfig(sample_freq=header.sample_freq)), header


def write_edf(path, x, dates=True):
    import datetime

    import edfio

    kind, ending = (edfio.BdfSignal, edfio.Bdf) if path.suffix == ".bdf" else (edfio.EdfSignal, edfio.Edf)
    signals = [
        kind(row * 1000, 500, label=f"ECG {lead}", physical_dimension="uV", physical_range=(-3276.8, 3276.7))
        for lead, row in zip(LEADS, x)
    ]
    signals.append(kind(np.zeros(100), 10, label="Resp", physical_dimension="V", physical_range=(-1, 1)))
    patient = edfio.Patient(sex="F", birthdate=datetime.date(1950, 3, 1) if dates else None)
    recording = edfio.Recording(startdate=datetime.date(2020, 3, 2) if dates else None)
    ending(signals, patient=patient, recording=recording).write(path)


@needs("edfio")
@pytest.mark.parametrize("name", ["R1.edf", "R1.bdf"])
def test_edf(name, ecg, tmp_path):
    x, _ = ecg
    write_edf(tmp_path / name, x)
    (record,) = find_records(tmp_path)
    read, header = millivolts(record)
    assert np.abs(read - x).max() < 1e-4  # its 16-bit steps are 0.1 uV
    assert (header.age, header.sex) == (70, "Female") and "Resp" in header.warnings[0]
    write_edf(tmp_path / name, x, dates=False)
    header = read_record(tmp_path / name)[1]
    assert np.isnan(header.age) and header.sex == "Female"
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:700])
    with pytest.raises(RecordError, match="R1"):
        read_record(record)


def write_discontinuous(path, x, onsets):
    """EDF+D or BDF+D with data records of 1 s, those in `onsets` {number: text} with another time than their own."""
    import edfio

    bdf = path.suffix == ".bdf"
    kind, ending = (edfio.BdfSignal, edfio.Bdf) if bdf else (edfio.EdfSignal, edfio.Edf)
    signals = [
        kind(row, 500, label=lead, physical_dimension="mV", physical_range=(-5, 5)) for lead, row in zip(LEADS, x)
    ]
    ending(signals, annotations=[edfio.EdfAnnotation(2, None, "beginning")], data_record_duration=1).write(path)
    content = bytearray(path.read_bytes())
    content[192:197] = b"BDF+D" if bdf else b"EDF+D"
    for number, text in onsets.items():
        old, new = (f"+{onset}\x14\x14\0".encode() for onset in (number, text))
        padded = old + bytes(len(new) - len(old))
        assert content.count(padded) == 1
        content = content.replace(padded, new)
    path.write_bytes(content)
    return (edfio.read_bdf if bdf else edfio.read_edf)(path)


@needs("edfio")
@pytest.mark.parametrize("name", ["R1.edf", "R1.bdf"])
def test_edf_with_gaps_is_refused(name, ecg, tmp_path):
    """Marked discontinuous, which files without gaps may be, too."""
    x, _ = ecg
    file = tmp_path / name
    assert write_discontinuous(file, x, {}).is_continuous
    (record,) = find_records(tmp_path)
    assert np.abs(millivolts(record)[0] - x).max() < 1e-4
    write_discontinuous(file, x, {5: "5.001", 6: "6.001"})  # half a sample
    assert np.abs(millivolts(record)[0] - x).max() < 1e-4
    assert not write_discontinuous(file, x, {number: f"{number + 90}" for number in range(5, 10)}).is_continuous
    with pytest.raises(RecordError, match=rf"{name}: is discontinuous \(.DF.D\): a gap of 90 s after its first 5 s"):
        read_record(record)
    write_discontinuous(file, x, {9: "12.5"})
    with pytest.raises(RecordError, match=r"a gap of 3.5 s after its first 9 s \(9 data records\): write each stretch"):
        read_record(record)
    write_discontinuous(file, x, {3: "1.5"})
    with pytest.raises(RecordError, match="a step back of 1.5 s after its first 3 s"):
        read_record(record)
    write_discontinuous(file, x, {3: "three"})
    with pytest.raises(RecordError, match="data record 4 does not say when it begins"):
        read_record(record)
    write_edf(file, x)
    content = bytearray(file.read_bytes())
    content[192:197] = f"{file.suffix[1:].upper()}+D".encode()  # without the annotations that it must have
    file.write_bytes(content)
    with pytest.raises(RecordError, match="does not say where its gaps are"):
        read_record(record)


@needs("pydicom")
def test_dicom(ecg, tmp_path):
    x, _ = ecg
    write_dicom(tmp_path / "a.dcm", x, by_code=True)
    write_dicom(tmp_path / "b.dcm", x, by_code=False)
    for record in find_records(tmp_path):
        read, header = millivolts(record)
        assert np.abs(read - x).max() < 2e-3 and lead_name(header.lead_names[3]) == "aVR"  # its steps are 2.5 uV
        assert (header.age, header.sex, header.sample_freq) == (61, "Male", 500)
    write_dicom(tmp_path / "a.dcm", x, by_code=True, with_unit=False)
    with pytest.raises(RecordError, match="ChannelSensitivity"):
        read_record(tmp_path / "a.dcm")


def write_dicom(path, x, by_code, with_unit=True):
    """A 12-lead ECG with median beats in a second group, as cardiographs export it."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage, generate_uid

    numbers = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = TwelveLeadECGWaveformStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientAge, data.PatientSex = "061Y", "M"
    data.WaveformSequence = []
    for samples in (x[:, :600], x):
        group = Dataset()
        group.WaveformOriginality, group.NumberOfWaveformChannels = "ORIGINAL", 12
        group.NumberOfWaveformSamples, group.SamplingFrequency = samples.shape[1], 500
        group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
        group.ChannelDefinitionSequence = []
        for lead, number in zip(LEADS, numbers):
            channel, source, unit = Dataset(), Dataset(), Dataset()
            source.CodeValue, source.CodingSchemeDesignator = (f"2:{number}", "MDC") if by_code else (lead, "99X")
            source.CodeMeaning = "?" if by_code else f"Lead {lead} (of 12)"
            channel.ChannelSourceSequence = [source]
            channel.WaveformBitsStored = 16
            if with_unit:
                unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "uV", "UCUM", "microvolt"
                channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor = 2.5, 1
                channel.ChannelBaseline, channel.ChannelSensitivityUnitsSequence = 0, [unit]
            group.ChannelDefinitionSequence.append(channel)
        group.WaveformData = np.rint(samples * 1000 / 2.5).astype("<i2").tobytes(order="F")
        data.WaveformSequence.append(group)
    data.save_as(path, enforce_file_format=True)


@needs("h5py")
def test_code15(ecg, tmp_path):
    import h5py

    x, _ = ecg
    tracings = np.zeros((3, 4096, 12), np.float32)
    tracings[0, 648:3448] = 2 * x[:, :2800].T  # 7 s, padded on both sides; the scale is 2
    tracings[1] = 2 * x[:, :4096].T
    with h5py.File(tmp_path / "exams_part0.hdf5", "w") as file:
        file["tracings"], file["exam_id"] = tracings, np.array([1169160, 2873686, 0])
    (tmp_path / "exams.csv").write_text(
        "exam_id,age,is_male,nn_predicted_age,1dAVb,RBBB,LBBB,SB,ST,AF,patient_id,death,timey,normal_ecg,trace_file\n"
        "1169160,38,True,40.1,False,True,False,False,False,True,523632,False,2.0,False,exams_part0.hdf5\n"
        "2873686,73,False,67.0,False,False,False,False,False,False,1724173,False,6.6,True,exams_part0.hdf5\n"
    )
    records = find_records(tmp_path)
    assert [record.record_id for record in records] == ["1169160", "2873686"]
    (read, header), (_, other) = map(millivolts, records)
    assert np.allclose(read, x[:, :2800], atol=1e-6) and header.sample_freq == 400
    assert (header.age, header.sex, header.dx) == (38, "Male", ("59118001", "164889003"))
    assert (other.age, other.sex, other.dx) == (73, "Female", ("426783006",))
    metadata = read_metadata(find_table(tmp_path), [record.name for record in records])
    assert metadata.patient_ids.tolist() == ["523632", "1724173"]


def test_cpsc2018_originals(ecg, tmp_path):
    from scipy.io import savemat

    x, _ = ecg
    (tmp_path / "TrainingSet1").mkdir()
    for name in ("A0001", "A0002", "stray"):
        struct = {"sex": "Female", "age": np.array([[74]]), "data": x}
        savemat(tmp_path / "TrainingSet1" / f"{name}.mat", {"ECG": struct})
    (tmp_path / "TrainingSet1" / "REFERENCE.csv").write_text(
        "Recording,First_label,Second_label,Third_label\nA0001,5,,\nA0002,2,8,\n"
    )
    records = find_records(tmp_path)
    assert [record.record_id for record in records] == ["A0001", "A0002"]
    read, header = millivolts(records[1])
    assert np.allclose(read, x, atol=1e-6) and (header.age, header.sex) == (74, "Female")
    classes = load_class_set("cpsc2018")
    assert [classes.codes[i] for i in np.flatnonzero(classes.encode(header.dx))] == ["AF", "STD"]
    assert classes.encode(read_record(records[0])[1].dx)[classes.column("RBBB")] == 1


@needs("openpyxl")
def test_chapman_originals(ecg, tmp_path):
    import openpyxl

    x, _ = ecg
    names = ("MUSE_20180113_171327_27000", "MUSE_20180112_073319_29000")
    for folder in ("ECGData", "ECGDataDenoised"):
        (tmp_path / folder).mkdir()
        for name in names:
            head = ",".join(LEADS) + "\n" if folder == "ECGData" else ""
            with open(tmp_path / folder / f"{name}.csv", "w") as out:
                out.write(head)
                np.savetxt(out, np.rint(x.T * 1000), delimiter=",", fmt="%d")
    book = openpyxl.Workbook()
    book.active.append(["FileName", "Rhythm", "Beat", "PatientAge", "Gender", "VentricularRate"])
    book.active.append([names[0], "AFIB", "RBBB TWC", 85, "MALE", 117])
    book.active.append([names[1], "SB", "NONE ODD", 59, "FEMALE", 52])
    book.save(tmp_path / "Diagnostics.xlsx")
    records = find_records(tmp_path)
    assert [record.source for record in records] == ["ECGData", "ECGData"]
    (_, other), (read, header) = map(millivolts, records)
    assert np.abs(read - x).max() < 1e-3
    assert (header.age, header.sex, header.dx) == (85, "Male", ("164889003", "59118001", "164934002"))
    assert other.dx == ("426177001",) and "ODD" in other.warnings[0]


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "edfio", None)
    (tmp_path / "R1.edf").write_bytes(b"0" * 1000)
    with pytest.raises(RecordError, match="pip install edfio"):
        read_record(find_records(tmp_path)[0])


def test_other_files_of_these_names_do_no_harm(tmp_path):
    """Beside WFDB records: weights of a network, and tables that are something else."""
    write_record(tmp_path, "R1", fake_ecg(np.random.default_rng(0)))
    for name in ("model.h5", "weights.hdf5", "record_list.csv", "notes.csv", "a.npy"):
        (tmp_path / name).write_bytes(b"\xff\xfe nothing\n")
    for name in ("exams.csv", "REFERENCE.csv", "ptbxl_database.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    (tmp_path / "exams.csv").unlink()
    assert [(record.record_id, record.fault) for record in find_records(tmp_path)] == [("R1", "")]
    assert find_table(tmp_path) is None
    (tmp_path / "REFERENCE.csv").write_text("Recording,First_label\nR1,12\n")
    fault = find_records(tmp_path)[-1]
    assert fault.record_id == "REFERENCE.csv/" and "label '12' is not 1 to 9" in fault.fault


@needs("edfio")
def test_one_name_in_two_formats(ecg, tmp_path):
    write_edf(tmp_path / "R1.edf", ecg[0])
    write_record(tmp_path, "R1", fake_ecg(np.random.default_rng(0)))
    assert [record.record_id for record in find_records(tmp_path)] == ["R1", "R1.edf"]


@needs("edfio")
@pytest.mark.slow
def test_driver_and_predict_read_other_formats(ecg, tmp_path, run_script):
    (tmp_path / "in").mkdir()
    write_edf(tmp_path / "in" / "R1.edf", ecg[0])
    run_script("driver.py", "in", "out", cwd=tmp_path)
    done = run_script("predict.py", "in/R1.edf", "--json", cwd=tmp_path)
    answers = (tmp_path / "out" / "R1.csv").read_text().splitlines()
    rows = {row["code"]: row["probability"] for row in json.loads(done.stdout)["recordings"][0]["diagnoses"]}
    assert np.allclose(
        [rows[code] for code in answers[1].split(",")], np.array(answers[3].split(","), float), atol=1e-5
    )
