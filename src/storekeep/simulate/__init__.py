"""A simulated supply side around real demand, and a rule from a common ERP played on it.

A sales history says what customers took; it has no stock, suppliers, costs or lead times. This package makes
them from a seed, so that every run of the same history meets the same shop: `assumptions` holds every number
that is assumed, `supply` the shop, `demand` the history as a matrix, `baseline` the day loop with the min/max
rule, `kpi` the figures. Nothing here decides anything for a retailer, and all it makes is called simulated.

The order of a day, which whoever drives a simulated shop keeps to:

1. At the start of the day goods due that day arrive.
2. The day's demand is served from what is on hand; what is not on hand is lost.
3. After the last till line orders are placed with the suppliers whose review weekday it is, knowing on-hand,
   on-order and demand up to and including that day.
4. An order placed on day d with lead time L arrives at the start of day d + L; L is at least 1.
"""
