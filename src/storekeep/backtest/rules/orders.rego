# The twenty rules of orders.yaml, in Rego; `verdict` puts them together as Storekeep does.
package orders

permit contains "ordinary-order" if {
  input.order_units > 0
  input.history_days >= 28
  input.demand_days_91d > 0
}
permit contains "staple" if {
  input.demand_days_91d >= 60
  input.order_value_minor <= 40000
}

forbid contains "no-cost" if input.unit_cost_minor <= 0
forbid contains "wrong-value" if input.order_value_minor != input.order_units * input.unit_cost_minor
forbid contains "not-selling" if input.days_since_sale > 60
forbid contains "too-young" if input.history_days < 28
forbid contains "below-minimum" if input.order_units < input.minimum_order_units
forbid contains "sold-at-a-loss" if input.unit_cost_minor >= input.unit_price_minor
forbid contains "full-shelf" if (input.on_hand_units + input.on_order_units) + input.committed_units > 400
forbid contains "other-currency" if input.currency != "USD"
forbid contains "blocked-supplier" if input.supplier_id in ["S007", "S013"]

escalate contains "large-line" if input.order_value_minor > 80000
escalate contains "very-large-line" if input.order_value_minor > 250000
escalate contains "unproven-supplier" if {
  input.lead_time_count == 0
  input.order_value_minor > 20000
}
escalate contains "seldom-sold" if {
  input.demand_days_91d < 10
  input.order_units > 48
}
escalate contains "slow" if {
  input.days_since_sale > 30
  input.order_units > 24
}
escalate contains "dear-item" if {
  input.unit_cost_minor > 3000
  input.order_units > 12
}

clip contains "twenty-packs" if input.order_units > 20 * input.pack_size_units
clip contains "no-more-than-600" if input.order_units > 600
clip contains "young-item" if {
  input.history_days < 60
  input.order_units > 5 * input.pack_size_units
}

verdict := "deny" if {
  count(forbid) > 0
} else := "escalate" if {
  count(escalate) > 0
} else := "deny" if {
  count(permit) == 0
} else := "clip" if {
  count(clip) > 0
} else := "allow"
