"""The waves of one median beat, measured slice by slice: what data.waves does with masks for many at once."""

import numpy as np

from data.leads import LEADS


def plain_waves(beat, centre, rate, typical, there):
    """{name: number}, names as in data.measures.NAMES, of a median beat (12, P) in mV; arguments as of one of
    data.waves.measure_waves.
    """
    onset, end = qrs_limits(beat, centre, rate)
    before = slice(onset - round(0.024 * rate), onset - round(0.004 * rate))
    beat = beat - beat[:, before].mean(1, keepdims=True)
    of_lead = {}
    values = qrs(beat, onset, end, rate, of_lead)
    values |= t_wave(beat, onset, end, rate, typical, of_lead)
    values |= p_wave(beat, onset, rate, of_lead)
    values["qrs_t_angle"] = abs((values["qrs_axis"] - values["t_axis"] + 180) % 360 - 180)
    if not there[:2].all():
        values |= dict.fromkeys(("qrs_axis", "t_axis", "qrs_t_angle"), np.nan)
    if not there[6:].any():
        values["chest_height"] = np.nan
    for name, row in of_lead.items():
        values |= {f"{name} {lead}": x if known else np.nan for lead, x, known in zip(LEADS, row, there)}
    return values


def qrs_limits(beat, centre, rate):
    speed = np.sqrt((np.diff(beat, axis=1) ** 2).mean(0))
    speed = np.convolve(speed, np.full(5, 1 / 5), "same")
    reach = round(0.12 * rate)
    fastest = centre - reach + speed[centre - reach : centre + reach].argmax()
    slow = speed < 0.12 * speed[fastest] + np.quantile(speed, 0.2)
    width = round(0.02 * rate)
    onset = first = centre - round(0.18 * rate)
    for i in range(first, fastest - width + 1):
        if slow[i : i + width].all():
            onset = i + width
    end = last = centre + round(0.2 * rate)
    for i in range(last, fastest - 1, -1):
        if slow[i : i + width].all():
            end = i
    return onset, max(end, onset + 1)


def qrs(beat, onset, end, rate, of_lead):
    part = beat[:, onset : end + 1]
    rows = []
    for lead, x in zip(beat, part):
        top = x.argmax()
        bottom = top + x[top:].argmin()
        q = min(0, x[: top + 1].min())
        r = max(0, x.max())
        s = min(0, x[top:].min())
        rows.append(
            {
                "q": q,
                "r": r,
                "s": s,
                "r2": max(0, x[bottom:].max()) if s < 0 else 0,
                "q_duration": (x[: top + 1] < -0.03).sum() * 1000 / rate,
                "q_to_r": -q / (r + 0.05),
                "r_time": top * 1000 / rate,
                "qrs_area": x.sum() * 1000 / rate,
                "j": lead[end],
                "st": lead[end + round(0.06 * rate)],
            }
        )
    of_lead |= {name: np.array([row[name] for row in rows]) for name in rows[0]}
    height = np.ptp(part, axis=1)
    return {
        "qrs_duration": (end - onset) * 1000 / rate,
        "qrs_axis": axis(of_lead["qrs_area"]),
        "limb_height": height[:6].max(),
        "chest_height": height[6:].max(),
    }


def axis(x):
    return np.degrees(np.arctan2((x[1] + x[2]) / np.sqrt(3), x[0]))


def t_wave(beat, onset, end, rate, typical, of_lead):
    reach = 0.45 if np.isnan(typical) else min(0.45, 0.6 * typical)
    first = end + round(0.06 * rate)
    t = beat[:, first : end + round(reach * rate)]
    largest = np.where(t.max(1) > -t.min(1), t.max(1), t.min(1))
    of_lead |= {"t": largest, "t_top": t.max(1), "t_bottom": t.min(1), "t_mean": t.mean(1)}
    of_lead["t_to_qrs"] = largest / (of_lead["r"] - of_lead["s"] + 0.1)
    size = np.sqrt((t**2).mean(0))
    peak = over = size.argmax()
    while over < len(size) and size[over] >= 0.3 * size[peak]:
        over += 1
    qt = (first + over - onset) / rate
    usual = min(max(typical, 0.3), 1.7) if typical == typical else np.nan
    return {
        "t_axis": axis(t.mean(1)),
        "t_peak": (first + peak - onset) * 1000 / rate,
        "qt": 1000 * qt,
        "qt_bazett": 1000 * qt / np.sqrt(usual),
        "qt_fridericia": 1000 * qt / np.cbrt(usual),
    }


def p_wave(beat, onset, rate, of_lead):
    first = max(0, onset - round(0.3 * rate))
    gap = round(0.03 * rate)
    p = beat[:, first : onset - gap]
    left = p[:, :5].mean(1, keepdims=True)
    p = p - left - (p[:, -5:].mean(1, keepdims=True) - left) * np.linspace(0, 1, p.shape[1])
    size = np.sqrt((p**2).mean(0))
    peak = begins = size.argmax()
    while begins > 0 and size[begins] >= 0.3 * size[peak]:
        begins -= 1
    of_lead["p"] = p[:, peak]
    return {
        "p_peak": (len(size) - peak + gap) * 1000 / rate,
        "pr": (len(size) - begins + gap) * 1000 / rate,
        "p_height": size[peak],
    }
