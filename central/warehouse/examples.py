"""What the help of `python -m central ask` says of the views, and what one may ask of them."""

from typing import Final

EXAMPLES: Final = """\b
Views:
  verdicts      what stands: one row per event
  history       every revision of every verdict
  escalations   what gateways doubted, beside what the centre answered
  answers       what people said, beside what a model had said

\b
False alarms per source, as far as people have looked:
  SELECT source, count(*) FILTER (label = 'benign') AS false_alarms, count(*) AS answered
  FROM answers WHERE model_label <> 'benign' GROUP BY source ORDER BY false_alarms DESC

\b
Share escalated, by gateway and day:
  SELECT day, gateway, round(avg((route = 'escalated')::INT), 4) AS escalated, count(*) AS verdicts
  FROM history WHERE revision = 0 GROUP BY ALL ORDER BY ALL

\b
Disagreement of gateways and centre, by release:
  SELECT gateway_release, central_release, round(avg(changed::INT), 4) AS changed, count(*) AS answered
  FROM escalations WHERE changed IS NOT NULL GROUP BY ALL ORDER BY ALL
"""
