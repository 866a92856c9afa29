"""Facts about a model: layers, channel groups, costs. See `profile.profile_model`."""
