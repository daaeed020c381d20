"""The longer questions that the history asks in SQL."""

from __future__ import annotations

from iree_pilot.pipeline.failures.diagnostics import PASSING

RUNS = """
SELECT id, uuid, config, title, machine, begun, finished,
    (SELECT count(*) FROM outcomes WHERE run_id = chosen.id),
    (SELECT count(status) FROM outcomes WHERE run_id = chosen.id),
    revision,
    (SELECT json_group_object(verdict, times) FROM (
        SELECT j.verdict, count(*) AS times
        FROM outcomes o JOIN judgements j ON j.outcome_id = o.id
        WHERE o.run_id = chosen.id GROUP BY j.verdict)),
    notes, accept
FROM chosen ORDER BY begun DESC, id DESC
"""

OUTCOMES = """
SELECT c.name, o.why, o.key, o.machine, o.worker, o.begun, o.seconds, o.peak_bytes, o.reused,
    o.result_id, o.attempts,
    (SELECT json_group_object(name, value) FROM metrics WHERE outcome_id = o.id),
    o.program, o.files, o.source
FROM outcomes o JOIN cases c ON c.id = o.case_id JOIN runs r ON r.id = o.run_id
"""

PAST = """
WITH nights AS (
    SELECT o.id, o.case_id, r.id AS run_id, r.begun, r.machine,
        row_number() OVER (
            PARTITION BY o.case_id, o.reused ORDER BY r.begun DESC, r.id DESC) AS place
    FROM outcomes o JOIN runs r ON r.id = o.run_id
    WHERE o.status IS NOT NULL AND r.finished IS NOT NULL
        AND (r.begun, r.id) < (SELECT begun, id FROM runs WHERE id = ?1)
        AND o.case_id IN (SELECT id FROM cases WHERE name IN (SELECT value FROM json_each(?2)))
)
SELECT c.name, n.run_id, n.begun, o.status, o.result_id IS NOT NULL, o.reused,
    coalesce(nullif(o.machine, ''), n.machine), coalesce(j.verdict, ''),
    CASE o.status WHEN 'failed' THEN (
        SELECT json_group_array(json_array(position, kind, coalesce(phase, ''), signature))
        FROM failures WHERE result_id = o.result_id) END,
    (SELECT json_group_object(name, value) FROM metrics WHERE outcome_id = n.id),
    o.program, o.files
FROM nights n JOIN outcomes o ON o.id = n.id JOIN cases c ON c.id = n.case_id
LEFT JOIN judgements j ON j.outcome_id = n.id
WHERE n.place <= ?3
ORDER BY n.begun DESC, n.run_id DESC
"""

USUAL = """
WITH nights AS (
    SELECT c.name, o.seconds, o.peak_bytes,
        row_number() OVER (PARTITION BY o.case_id ORDER BY r.begun DESC, o.id DESC) AS place
    FROM outcomes o JOIN cases c ON c.id = o.case_id JOIN runs r ON r.id = o.run_id
    WHERE o.result_id IS NOT NULL AND NOT o.reused
        AND c.name IN (SELECT value FROM json_each(?1))
)
SELECT name, seconds, peak_bytes FROM nights WHERE place <= ?2
"""

KNOWN = f"""
SELECT name, key FROM (
        SELECT c.name, o.id, o.key, o.result_id, o.attempts, row_number()
            OVER (PARTITION BY c.id, o.key ORDER BY r.begun DESC, o.id DESC) AS place
        FROM outcomes o JOIN cases c ON c.id = o.case_id JOIN runs r ON r.id = o.run_id
        WHERE c.name IN (SELECT value FROM json_each(?))
            AND o.key != '' AND o.result_id IS NOT NULL AND NOT o.reused
    ) o
    WHERE place = 1
        AND NOT EXISTS (SELECT 1 FROM failures f WHERE f.result_id = o.result_id
            AND f.position = 0 AND (f.kind IN ({", ".join(f"'{kind}'" for kind in PASSING)})
                OR f.signal = 'SIGKILL'))
        AND (SELECT count(DISTINCT value) FROM json_each(o.attempts)) <= 1
    ORDER BY id DESC
"""
