"""What our policy would be without classes of service: each model's requests are served as they come, and none is
turned away for its deadline."""

from policy.view import Waiting
from sim.judgement import Judgement
from sim.policy import WaitingRequest


class FirstCome(Judgement):
    """All else is the same."""

    name = "first-come"

    def waiting(self, one: WaitingRequest) -> Waiting:
        """Without its class."""
        return Waiting(one.id, one.model, one.since_s, prompt_tokens=one.prompt_tokens)
